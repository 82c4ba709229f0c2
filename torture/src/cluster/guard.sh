# Outlives the tester for as long as it takes to end its processes and remove its folder, however the
# tester ends: its standard input ends then. Each line on it is a pid: +PID began, -PID ended.
set -u
dir=$1
trap '' INT TERM HUP
pids=
while read -r line; do
    pid=${line#?}
    case $line in
        +*) pids="$pids $pid " ;;
        -*) pids=$(printf '%s' "$pids" | sed "s/ $pid / /") ;;
    esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
# The children of a postmaster see that it is gone, and end.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    for mounted in "$dir"/*/small; do umount "$mounted" 2>/dev/null; done
    rm -rf "$dir" 2>/dev/null && [ ! -e "$dir" ] && exit
    sleep 0.2
done
