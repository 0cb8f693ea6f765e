#!/bin/bash
# The steps of the page by hand, with the binaries that the stack uses: what `make bench` measures the stack against.
#
#   by_hand.sh up|down|vault|streaming
#   by_hand.sh switch primary standby
#
# `vault` and `streaming` are parts of `up`, for a tool that makes only the servers. `switch` makes the second server the primary.
#
# From the environment: DIRECTORY (all that is made lies in it), BIN (of PostgreSQL), BAO, USER_ID and GROUP_ID (the servers'
# account), VAULT_PORT, CLUSTER_PORT, PRIMARY_PORT, STANDBY_PORT.
set -euo pipefail
cd "$DIRECTORY"
address=https://127.0.0.1:$VAULT_PORT

as_account() {
    if [ "$(id -u)" = "$USER_ID" ]; then "$@"; else
        setpriv --reuid="$USER_ID" --regid="$GROUP_ID" --init-groups -- "$@"
    fi
}

sql() { as_account "$BIN/psql" --no-psqlrc -XqAt -v ON_ERROR_STOP=1 -h "$DIRECTORY/run" -U postgres "$@"; }

owned() { # path, mode: what stdin holds, for the servers' account
    (umask 077 && cat >"$1") && chmod "$2" "$1" && chown "$USER_ID:$GROUP_ID" "$1"
}

certificates() {
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -subj "/CN=by hand" -days 3650 -addext keyUsage=keyCertSign,cRLSign -out ca.pem
    openssl ecparam -name prime256v1 -genkey -noout | owned vault/server.key 600
    openssl req -new -key vault/server.key -subj /CN=localhost -out server.csr
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 3650 -out vault/server.pem \
        -extfile <(echo "subjectAltName=IP:127.0.0.1,DNS:localhost") 2>/dev/null
    rm ca.key server.csr
}

make_vault() {
    mkdir vault && install -d -m 700 -o "$USER_ID" -g "$GROUP_ID" vault/data
    certificates
    head -c 32 /dev/urandom | owned vault/seal.key 600
    cat >vault/server.json <<END
{"storage": {"raft": {"path": "data", "node_id": "local", "performance_multiplier": "1"}},
 "listener": {"tcp": {"address": "127.0.0.1:$VAULT_PORT", "cluster_address": "127.0.0.1:$CLUSTER_PORT",
                      "tls_cert_file": "server.pem", "tls_key_file": "server.key"}},
 "seal": {"static": {"current_key_id": "local", "current_key": "file://seal.key"}},
 "api_addr": "$address", "cluster_addr": "https://127.0.0.1:$CLUSTER_PORT"}
END
    (cd vault && as_account setsid --fork "$BAO" server -config=server.json >log 2>&1 </dev/null)
    until_health 501
    curl -s --cacert ca.pem -X PUT -d '{"recovery_shares": 1, "recovery_threshold": 1}' "$address/v1/sys/init" >made
    token=$(sed 's/.*"root_token":"\([^"]*\)".*/\1/' made)
    until_health 200
    fill_vault
}

until_health() {
    until [ "$(curl -s -o /dev/null -w '%{http_code}' --cacert ca.pem "$address/v1/sys/health")" = "$1" ]; do sleep 0.02; done
}

vault() { # any number of "METHOD PATH BODY ANSWER", sent over one connection
    local requests=() next=()
    while [ $# -gt 0 ]; do
        requests+=("${next[@]}" -s -f --cacert ca.pem -H "X-Vault-Token: $token" -X "$1" -d "$3" -o "$4" "$address/v1/$2")
        next=(--next)
        shift 4
    done
    curl "${requests[@]}"
}

fill_vault() {
    openssl rand -hex 24 | owned password 600
    password=$(cat password)
    primary='path \"sys/mounts/tde\" { capabilities = [\"read\"] } path \"tde/data/*\" { capabilities = [\"create\", \"read\"] }'
    standby='path \"tde/data/*\" { capabilities = [\"read\"] }'
    local common='"period": "768h", "no_parent": true, "no_default_policy": true, "renewable": true'
    vault POST sys/mounts/tde '{"type": "kv", "options": {"version": "2"}}' /dev/null \
        PUT sys/policies/acl/tde-primary "{\"policy\": \"$primary\"}" /dev/null \
        PUT sys/policies/acl/tde-standby "{\"policy\": \"$standby\"}" /dev/null \
        POST auth/token/create "{\"policies\": [\"tde-primary\"], $common}" primary.token \
        POST auth/token/create "{\"policies\": [\"tde-standby\"], $common}" standby.token \
        POST tde/data/replication/replicator "{\"data\": {\"username\": \"replicator\", \"password\": \"$password\"}}" /dev/null
}

server_files() { # a server's name: its directory, token and CA
    install -d -m 700 -o "$USER_ID" -g "$GROUP_ID" "$1"
    sed 's/.*"client_token":"\([^"]*\)".*/\1/' "$1.token" | owned "$1/vault-token" 600
    owned "$1/vault-ca.pem" 644 <ca.pem
}

settings() { # name, port
    printf "%s\n" "port = $2" "listen_addresses = '127.0.0.1'" "unix_socket_directories = '$DIRECTORY/run'" \
        "cluster_name = '$1'" "max_slot_wal_keep_size = '4GB'"
}

start_server() { as_account "$BIN/pg_ctl" start --silent --wait -D "$1/data" -l "$1/postgresql.log"; }

start_primary() {
    server_files primary
    as_account "$BIN/initdb" --pgdata primary/data --username postgres --auth-local trust --auth-host scram-sha-256 \
        --encoding UTF8 --locale-provider builtin --locale C.UTF-8 --data-checksums >/dev/null
    settings primary "$PRIMARY_PORT" >>primary/data/postgresql.auto.conf
    start_server primary
}

allow_replication() {
    sql -p "$PRIMARY_PORT" -d postgres >/dev/null <<END
CREATE ROLE replicator LOGIN REPLICATION PASSWORD '$password';
SELECT pg_create_physical_replication_slot('tde_standby1', true);
END
    sed -i '0,/^[^#]/s//host replication replicator 127.0.0.1\/32 scram-sha-256\n&/' primary/data/pg_hba.conf
    chown "$USER_ID:$GROUP_ID" primary/data/pg_hba.conf
    sql -p "$PRIMARY_PORT" -d postgres -c "SELECT pg_reload_conf()" >/dev/null
}

start_standby() {
    server_files standby
    printf '*:*:replication:replicator:%s\n' "$password" | owned standby/pgpass 600
    local upstream="host=127.0.0.1 port=$PRIMARY_PORT user=replicator passfile=$DIRECTORY/standby/pgpass sslmode=prefer"
    as_account "$BIN/pg_basebackup" --pgdata standby/data --dbname "$upstream" --wal-method=stream --slot=tde_standby1 \
        --checkpoint=fast --verbose --progress --no-password 2>basebackup.log
    {
        settings standby "$STANDBY_PORT"
        printf "%s\n" "primary_conninfo = '$upstream application_name=standby1'" "primary_slot_name = 'tde_standby1'"
    } >>standby/data/postgresql.auto.conf
    owned standby/data/standby.signal 600 </dev/null
    start_server standby
}

until_streaming() {
    local state="SELECT count(*) FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid WHERE state = 'streaming'"
    until [ "$(sql -p "$PRIMARY_PORT" -d postgres -c "$state")" = 1 ]; do sleep 0.02; done
    local written
    written=$(sql -p "$PRIMARY_PORT" -d postgres -c "SELECT pg_logical_emit_message(true, 'by hand', 'check')")
    until [ "$(sql -p "$STANDBY_PORT" -d postgres -c "SELECT pg_last_wal_replay_lsn() >= '$written'::pg_lsn")" = t ]; do
        sleep 0.02
    done
}

up() {
    install -d -m 755 -o "$USER_ID" -g "$GROUP_ID" run
    make_vault
    start_primary
    allow_replication
    start_standby
    until_streaming
}

port_of() { [ "$1" = primary ] && echo "$PRIMARY_PORT" || echo "$STANDBY_PORT"; }

switch() { # the primary's name, and the next one's
    local from=$1 to=$2 upstream slots="SELECT pg_create_physical_replication_slot('tde_$1', true)"
    upstream="host=127.0.0.1 port=$(port_of "$to") user=replicator passfile=$DIRECTORY/$from/pgpass sslmode=prefer"
    printf '*:*:replication:replicator:%s\n' "$(cat password)" | owned "$from/pgpass" 600
    sql -p "$(port_of "$to")" -d postgres -c "$slots" >/dev/null
    sql -p "$(port_of "$from")" -d postgres -c CHECKPOINT >/dev/null
    owned "$from/data/standby.signal" 600 </dev/null
    as_account "$BIN/pg_ctl" stop --silent -m fast -D "$from/data"
    as_account "$BIN/pg_controldata" "$from/data" | grep -q 'state: *shut down$'
    as_account "$BIN/pg_ctl" promote --silent --wait -D "$to/data"
    rm -rf "$from"/data/pg_replslot/tde_*
    printf "%s\n" "primary_conninfo = '$upstream application_name=$from'" "primary_slot_name = 'tde_$from'" \
        >>"$from/data/postgresql.auto.conf"
    start_server "$from"
    until [ "$(sql -p "$(port_of "$to")" -d postgres -c "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")" = 1 ]; do
        sleep 0.02
    done
}

down() {
    as_account "$BIN/pg_ctl" stop --silent -m fast -D standby/data
    as_account "$BIN/pg_ctl" stop --silent -m fast -D primary/data
    token=$(sed 's/.*"root_token":"\([^"]*\)".*/\1/' made)
    revoke() { printf '{"token": "%s"}' "$(sed 's/.*"client_token":"\([^"]*\)".*/\1/' "$1.token")"; }
    vault POST auth/token/revoke "$(revoke primary)" /dev/null POST auth/token/revoke "$(revoke standby)" /dev/null \
        DELETE sys/policies/acl/tde-primary '' /dev/null DELETE sys/policies/acl/tde-standby '' /dev/null \
        DELETE sys/mounts/tde '' /dev/null
    rm -r primary standby
}

case $1 in
up | down) "$1" ;;
switch) switch "$2" "$3" ;;
vault) make_vault ;;
streaming) until_streaming ;;
esac
