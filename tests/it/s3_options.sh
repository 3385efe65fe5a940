#!/bin/bash
# How a bucket is reached: TLS with a certificate authority of one's own, BUCKET.HOST, credentials from the environment, a
# profile and a file; what is said when something is wrong; what status tells.
. tests/it/lib.sh
. tests/it/s3_lib.sh
use_store versitygw

fails() {
    local name=$1 status=$2 text=$3 got=0
    shift 3
    "$@" >"$T/out" 2>&1 </dev/null || got=$?
    is "$name: exit status" $got "$status"
    grep -q -- "$text" "$T/out" && ok "$name: says \"$text\"" || { not_ok "$name: says \"$text\""; sed 's/^/#   /' "$T/out"; }
}
new_volume() {
    local url=$1
    shift
    timeout 60 "$V" init "$url" --key-file "$T/key" --state "$T/host" "$@"
}
export AWS_EC2_METADATA_DISABLED=true HOME=$T
E=(--endpoint "$ENDPOINT")
fails "no credentials" 1 "no S3 credentials" new_volume s3://vol/none "${E[@]}"
echo AK:wrong >"$T/wrong"
fails "the wrong secret" 1 "SignatureDoesNotMatch" new_volume s3://vol/none "${E[@]}" --access-key-file "$T/wrong"
echo nonsense >"$T/nonsense"
fails "an access file that is none" 1 "not ACCESS_KEY:SECRET" new_volume s3://vol/none "${E[@]}" --access-key-file "$T/nonsense"
fails "no bucket" 1 "does not exist" new_volume s3://nowhere/x "${E[@]}" --access-key-file "$T/access"
fails "no volume" 3 "no volume" "$V" status s3://vol/empty "${STORE_OPTIONS[@]}" --key-file "$T/key"
fails "no server" 1 "Connection\|connect" new_volume s3://vol/x --endpoint http://127.0.0.1:1 --access-key-file "$T/access"
fails "no bucket in the URL" 2 "s3://BUCKET" new_volume s3:// "${E[@]}"
fails "an endpoint that is none" 2 "an endpoint looks like" new_volume s3://vol/x --endpoint ftp://x
fails "a profile that is not there" 2 "no such profile" new_volume s3://vol/x "${E[@]}" --profile nobody

# Credentials: in a file, in the environment, in a profile that also knows the endpoint.
check "an access file" new_volume s3://vol/file "${E[@]}" --access-key-file "$T/access"
check "the environment" env AWS_ACCESS_KEY_ID=AK AWS_SECRET_ACCESS_KEY=SK AWS_ENDPOINT_URL="$ENDPOINT" \
    "$V" init s3://vol/environment --key-file "$T/key" --state "$T/host" --quiet
mkdir "$T/.aws"
printf '[work]\naws_access_key_id = AK\naws_secret_access_key = SK\n' >"$T/.aws/credentials"
printf '[profile work]\nregion = us-east-1\nendpoint_url = %s\n' "$ENDPOINT" >"$T/.aws/config"
check "a profile, endpoint and all" new_volume s3://vol/profile --profile work
check "the profile of the environment" env AWS_PROFILE=work "$V" status s3://vol/profile --key-file "$T/key" --state "$T/host"
fails "a volume is there already" 3 "already is a volume" new_volume s3://vol/profile --profile work
check "a body that is signed, MD5, a storage class, a header" new_volume s3://vol/words "${E[@]}" --access-key-file "$T/access" \
    --sign-payload --checksum md5 --storage-class STANDARD --header "X-Amz-Meta-Who: varve"

# TLS, and the bucket in the host's name.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext "subjectAltName=DNS:localhost,DNS:vol.localhost,IP:127.0.0.1" \
    -keyout "$T/tls.key" -out "$T/tls.pem" >/dev/null 2>&1
PORT=$(free_port)
"$B/s3-servers/versitygw" --quiet --keep-alive --port "127.0.0.1:$PORT" --access AK --secret SK --cert "$T/tls.pem" --key "$T/tls.key" \
    --virtual-domain "localhost:$PORT" posix "$T/gw" >"$T/tls.log" 2>&1 &
HELPERS+=($!)
wait_for_port "$PORT"
A=(--access-key-file "$T/access")
fails "a certificate of nobody" 1 "certificate" new_volume s3://vol/tls --endpoint "https://127.0.0.1:$PORT" "${A[@]}"
check "a certificate of an authority of one's own" new_volume s3://vol/tls --endpoint "https://127.0.0.1:$PORT" "${A[@]}" --ca-file "$T/tls.pem"
check "AWS_CA_BUNDLE" env AWS_CA_BUNDLE="$T/tls.pem" "$V" status s3://vol/tls --endpoint "https://127.0.0.1:$PORT" "${A[@]}" --key-file "$T/key" --state "$T/host"
check "the bucket in the host's name" new_volume s3://vol/virtual --endpoint "https://localhost:$PORT" "${A[@]}" --ca-file "$T/tls.pem" --virtual-hosted
check "is the same bucket" "$V" status s3://vol/virtual "${STORE_OPTIONS[@]}" --key-file "$T/key"

# What status tells of a server: where its socket is, requests, cost.
make_volume
serve --9p 127.0.0.1:0 || not_ok "serve"
"$V" status "$VOL" "${STORE_OPTIONS[@]}" --json --prices put=1000,get=0,gib=0,out=0 >"$T/status"
is "requests and their cost" "$(python3 - "$T/status" <<'P'
import json, sys
s = json.load(open(sys.argv[1]))
r, c = s["requests"], s["cost"]
print(s["is_served"], s["durability"], r["put"] > 0, r["list"] > 0, r["failed"], round(c["so_far"], 3) == r["put"] + r["list"])
P
)" "True bucket True True 0 True"
sleep 3
requests() {
    "$V" status "$VOL" "${STORE_OPTIONS[@]}" --json | python3 -c 'import json,sys; r = json.load(sys.stdin)["requests"]; print(sum(r[k] for k in ("put", "get", "head", "list", "delete")))'
}
before=$(requests)
sleep 7
is "an idle server makes no request in seven seconds" "$(requests)" "$before"
check "in words, too" sh -c "'$V' status '$VOL' ${STORE_OPTIONS[*]} | grep -q 'estimated cost'"
fails "prices that are none" 2 "prices" "$V" status "$VOL" "${STORE_OPTIONS[@]}" --prices put=free
is "its place is private" "$(stat -c %a "$T/host" "$T/host"/* | sort -u)" 700
check "stop" stop

# A role with a web identity: the token goes to STS (moto plays it), what comes back to the bucket.
if tools/install-s3-servers "$B" moto >/dev/null 2>&1; then
    start_s3 moto
    echo token >"$T/token"
    check "web identity" env AWS_WEB_IDENTITY_TOKEN_FILE="$T/token" AWS_ROLE_ARN=arn:aws:iam::123456789012:role/varve \
        AWS_ENDPOINT_URL_STS="http://127.0.0.1:$PORT" AWS_ENDPOINT_URL="http://127.0.0.1:$PORT" \
        "$V" init s3://vol/role --key-file "$T/key" --state "$T/host"
    check "STS was asked" grep -q '"POST / HTTP' "$T/s3.log"
fi
finish
