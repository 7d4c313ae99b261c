#!lua flags=allow-oom
-- Media is given up: its piece is replaced by one that says so, before anything is published, so that
-- nobody who takes over decides otherwise.
-- KEYS: lease, later-list of media; ARGV: token, id of the piece, tenant id, head, body.
-- Does nothing if the piece is gone.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('NOTOWNER the lease is not this worker\'s')
end
if redis.call('XDEL', KEYS[2], ARGV[2]) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], '*', 't', ARGV[3], 'm', ARGV[4], 'b', ARGV[5])
return 1
