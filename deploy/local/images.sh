#!/usr/bin/env bash
# Builds the three images and runs compose.yaml with them, where a Docker engine is: up, healthy, a webhook becomes an
# event, media with the simulator, each program and server killed, down and up with its volumes. Ends with everything gone.
#   images.sh [--built]    --built: images of these names are there already
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf 'images: %s\n' "$*" >&2; }
fail() {
    say "WRONG: $*"
    exit 1
}
docker info >/dev/null 2>&1 || {
    say "not run: no Docker engine answers"
    exit 0
}
docker compose version >/dev/null 2>&1 || {
    say "not run: docker has no compose plugin"
    exit 0
}

# MB that an image may have.
declare -A most=([ingress]=15 [worker]=30 [simulator]=10)
for program in "${!most[@]}"; do
    image="whatsapp-$program:0.1.0"
    [ "${1:-}" = --built ] || docker build -q -f deploy/docker/Dockerfile --target "$program" \
        --build-arg COMMIT="$(git rev-parse --short HEAD)" -t "$image" . >/dev/null
    size=$(($(docker image inspect -f '{{.Size}}' "$image") / 1000000))
    [ "$size" -le "${most[$program]}" ] || fail "$image has $size MB, more than ${most[$program]}"
    [ "$(docker image inspect -f '{{.Config.User}}' "$image")" = 65532:65532 ] || fail "$image runs as somebody else"
    ! docker history --no-trunc "$image" | grep -qiE 'secret|password|token=' || fail "$image tells a secret"
    say "$image: $size MB"
done

# Settings of its own: whatever .env has is not touched, and not used.
compose() { docker compose -p whatsapp-images --env-file deploy/compose/simulator.env --profile simulator "$@"; }
gone() { compose down --volumes --timeout 5 >/dev/null 2>&1 || true; }
trap gone EXIT
gone

eventually() {
    local what=$1 end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || {
            compose ps -a >&2
            compose logs --tail 20 >&2
            fail "not within 2 min: $what"
        }
        sleep 1
    done
}
get() { curl -sf "http://127.0.0.1:$1"; }
# What lies in the queues of events.
events() {
    curl -sf -u whatsapp:whatsapp "http://127.0.0.1:15672/api/queues/%2f" \
        | python3 -c 'import json, sys; print(sum(q.get("messages", 0) for q in json.load(sys.stdin) if not q["name"].endswith(".DLQ")))'
}
has_events() { [ "$(events)" -ge "$1" ]; }
send() { compose run --rm simulator send --url http://ingress:8080/webhook/meta --secret app-secret --count "$1" "${@:2}" >/dev/null; }
up() {
    compose up -d --no-build --wait --wait-timeout 180 >&2 || fail "it doesn't come up healthy"
    eventually "the worker is ready" get 9081/ready
}

began=$SECONDS
up
say "healthy after $((SECONDS - began)) s"
for program in ingress worker; do
    [ "$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}}' "whatsapp-images-$program-1")" = true ] || fail "$program may write"
done
send 100
eventually "100 events" has_events 100
media() { get 9081/metrics | grep -q '^whatsapp_media_transfers_total{outcome="stored".* [1-9]'; }
send 20 --kind image
eventually "media is stored" media
count=$(events)
for service in ingress worker simulator rabbitmq redis minio; do
    docker kill "whatsapp-images-$service-1" >/dev/null
    compose up -d --no-build --wait --wait-timeout 180 >&2 || fail "it doesn't come back after $service was killed"
    send 10
    count=$((count + 10))
    eventually "10 more events after $service was killed" has_events "$count"
done
compose down --timeout 20 >&2
up
eventually "events are there after down and up" has_events "$count"
say "webhook to event, media, kill -9 of each container, down and up: all right"
