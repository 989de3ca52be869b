"""The Lua scripts of the board of metrics; each is one atomic step.

beats      by name of a process: when it was last there, in ms by the store's clock
samples    by name: the snapshot of its samples; "ended" has those of processes long gone
settled    the processes whose end was noted
counts     restarts: the groups that ended without saying so
"""

from serve_app.store.script import Script

KEYS = [f"moss:{{metrics}}:{name}" for name in ("beats", "samples", "settled", "counts")]
ENDED = "ended"
RESTARTS = "restarts"
LOG_KEY = "log_key"

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Args: name, snapshot ('' for no change). The names and beats of all.
PUBLISH = Script(
    _NOW
    + """
redis.call('ZADD', KEYS[1], now, ARGV[1])
if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
"""
)

# Time, names and beats, snapshots by name, restarts.
READ = Script(
    _NOW
    + """
return {now, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), redis.call('HGETALL', KEYS[2]),
    redis.call('HGET', KEYS[4], 'restarts') or '0'}
"""
)

# Args: name, its beat (or '' to settle it whatever it is), 1 if its end is to be counted.
SETTLE = Script("""
if ARGV[2] ~= '' and redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if redis.call('SADD', KEYS[3], ARGV[1]) == 0 then return 0 end
if ARGV[3] == '1' then redis.call('HINCRBY', KEYS[4], 'restarts', 1) end
return 1
""")

# Args: name, its snapshot, what "ended" had ('' for nothing), what it has with that snapshot.
FOLD = Script("""
local old = redis.call('HGET', KEYS[2], 'ended') or ''
if old ~= ARGV[3] or redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], 'ended', ARGV[4])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
""")
