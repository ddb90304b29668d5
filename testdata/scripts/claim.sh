# Claims a domain whose standby key comes with the claim, so that it can be rotated at once: one
# that comes later waits until caches have forgotten what its name answered before. The first keys
# of a cluster are still being made when it starts.
domain=$1
shift
authd domain add "$domain" "$@" --wait >claimed || exit 1
cat claimed
grep -q ' standby ' claimed && exit 0
authd domain remove "$domain" --now --reason 'no standby yet'
exit 1
