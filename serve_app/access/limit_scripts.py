"""The Lua scripts of limits: one atomic step each, which a retry may repeat.

A key has two buckets, of requests and of tokens, and a set of turns with the time at which each
lease ends. A turn is counted while its lease holds, and remembered for a while after, so that its
tokens are settled once. `now_ms` is the store's clock unless it is given.
"""

from serve_app.store.script import Script

REMEMBER_MS = 10 * 60 * 1000
_NOW = """
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
"""
# What is in a bucket now; a full one if it was never used.
_LEVEL = """
local function level(name, size, per_ms)
    local stored = redis.call('HMGET', KEYS[1], name, name .. '_at')
    if not stored[1] then return size end
    local passed = math.max(0, now - tonumber(stored[2]))
    return math.min(size, tonumber(stored[1]) + passed * per_ms)
end
local function put(name, value, size, per_ms)
    redis.call('HSET', KEYS[1], name, string.format('%.17g', value), name .. '_at', now)
    local until_full = math.max(60000, math.ceil((size - value) / per_ms))
    local ttl = math.max(until_full, redis.call('PTTL', KEYS[1]))
    redis.call('PEXPIRE', KEYS[1], string.format('%d', ttl))
end
"""

# KEYS: buckets turns. ARGV: now_ms turn lease_ms requests_per_s tokens_per_min running_turns
# num_tokens. A limit may be ''. Returns {limit, ms to wait}, or nothing if the turn is let in.
#
# A bucket of requests holds those of a second, or one; a bucket of tokens those of a minute. A
# prompt larger than that waits for a full bucket. What is taken beyond it has to flow in first.
ADMIT = Script(f"""
{_NOW}
{_LEVEL}
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return false end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - {REMEMBER_MS})
local running = tonumber(ARGV[6])
if running and redis.call('ZCOUNT', KEYS[2], '(' .. now, '+inf') >= running then
    return {{'running_turns', 1000}}
end
local rate, per_min, wanted = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
local requests, tokens, size
if rate then
    size = math.max(1, rate)
    requests = level('requests', size, rate / 1000)
    if requests < 1 then
        return {{'requests_per_s', math.ceil((1 - requests) / rate * 1000)}}
    end
end
if per_min then
    tokens = level('tokens', per_min, per_min / 60000)
    local missing = math.max(1, math.min(wanted, per_min)) - tokens
    if missing > 0 then
        return {{'tokens_per_min', math.ceil(missing / per_min * 60000)}}
    end
end
if rate then put('requests', requests - 1, size, rate / 1000) end
if per_min then put('tokens', tokens - wanted, per_min, per_min / 60000) end
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3] + {REMEMBER_MS})
return false
""")

# KEYS: buckets turns. ARGV: now_ms turn tokens_per_min more_tokens, which may be negative.
SETTLE = Script(f"""
{_NOW}
{_LEVEL}
if redis.call('ZREM', KEYS[2], ARGV[2]) == 0 then return end
local per_min = tonumber(ARGV[3])
if not per_min or tonumber(ARGV[4]) == 0 then return end
local tokens = level('tokens', per_min, per_min / 60000) - ARGV[4]
put('tokens', math.min(per_min, tokens), per_min, per_min / 60000)
""")

# KEYS: buckets turns. ARGV: now_ms turn tokens_per_min num_tokens. Takes an ADMIT back, also one
# that comes later: a turn that is known already is let in, and neither counted nor charged.
WITHDRAW = Script(f"""
{_NOW}
{_LEVEL}
local until_ms = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or now)
redis.call('ZADD', KEYS[2], now, ARGV[2])
local ttl = math.max({REMEMBER_MS}, redis.call('PTTL', KEYS[2]))
redis.call('PEXPIRE', KEYS[2], string.format('%d', ttl))
local per_min = tonumber(ARGV[3])
if until_ms <= now or not per_min then return end
local tokens = level('tokens', per_min, per_min / 60000) + ARGV[4]
put('tokens', math.min(per_min, tokens), per_min, per_min / 60000)
""")

# KEYS: turns. ARGV: now_ms turn lease_ms.
RENEW = Script(f"""
{_NOW}
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3] + {REMEMBER_MS})
""")


def keys_of(key_id: str) -> tuple[str, str]:
    """Buckets and turns of a key."""
    return f"moss:{{limits-{key_id}}}:buckets", f"moss:{{limits-{key_id}}}:turns"
