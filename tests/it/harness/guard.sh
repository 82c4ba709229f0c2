# Owns the test cluster: makes it, runs it, and removes it when its standard input ends, which is when
# the test binary ends, however it ends. Arguments: folder, initdb, postgres.
set -u
dir=$1 initdb=$2 postgres=$3
trap '' INT TERM HUP
finish() {
    if [ -n "${pid:-}" ]; then kill -INT "$pid" 2>/dev/null; wait "$pid"; fi
    rm -rf "$dir"
    exit
}
"$initdb" --pgdata="$dir/data" --username=tidings --auth=trust --encoding=UTF8 --no-locale --no-sync \
    >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; finish; }
# Durability is tested elsewhere, with production settings.
"$postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c full_page_writes=off \
    -c max_connections=500 -c shared_buffers=256MB -c max_wal_size=4GB \
    >"$dir/postgres.log" 2>&1 </dev/null &
pid=$!
until grep -qs ready "$dir/data/postmaster.pid"; do
    kill -0 "$pid" 2>/dev/null || { cat "$dir/postgres.log" >&2; finish; }
    sleep 0.02
done
echo ready
cat >/dev/null
finish
