# Completion of sahub's commands, keys and choices in bash.
_sahub() {
    local line="${COMP_LINE:0:COMP_POINT}" words word="" found
    read -ra words <<< "$line"
    [[ "$line" == *" " ]] || word="${words[-1]}"
    if (( ${#words[@]} == 1 )) || { (( ${#words[@]} == 2 )) && [[ -n "$word" ]]; }; then
        COMPREPLY=($(compgen -W "COMMANDS" -- "$word"))
        return
    fi
    found=$(COMP_LINE="sahub ${line#*" ${words[1]} "}" "${words[0]}" "${words[1]}" -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -W "$found" -- "$word"))
    # bash takes what follows the last = for the word
    if [[ "$word" == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#"${word%=*}="}"); fi
}
complete -o nospace -o default -F _sahub sahub
