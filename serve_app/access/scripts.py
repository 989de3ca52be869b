"""The Lua scripts of keys and cookies: one atomic step each, which a retry may repeat.

All of it shares the hash tag `{access}`. A key is opaque bytes here. `version` changes with the
set of keys, so that a reader that has seen it reads no more.
"""

from serve_app.store.script import Script

KEYS, REVOKED, USED, VERSION = (
    f"moss:{{access}}:{name}" for name in ("keys", "revoked", "used", "version")
)
_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: keys version. ARGV: id key version.
ADD = Script("""
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
""")

# KEYS: keys revoked version cookies. ARGV: id version. Returns whether there is such a key.
REVOKE = Script(f"""
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
{_NOW}
redis.call('HSETNX', KEYS[2], ARGV[1], string.format('%d', now))
redis.call('SET', KEYS[3], ARGV[2])
redis.call('DEL', KEYS[4])
return 1
""")

# KEYS: version keys revoked. ARGV: version. Returns nothing if it is the same still.
READ = Script("""
local version = redis.call('GET', KEYS[1]) or ''
if version == ARGV[1] then return false end
return {version, redis.call('HGETALL', KEYS[2]), redis.call('HKEYS', KEYS[3])}
""")

# KEYS: keys revoked used.
LIST = Script("""
return {
    redis.call('HGETALL', KEYS[1]),
    redis.call('HGETALL', KEYS[2]),
    redis.call('HGETALL', KEYS[3])
}
""")

# KEYS: used. ARGV: id.
USE = Script(f"""
{_NOW}
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now))
""")

# KEYS: cookies. ARGV: digest max_age_ms max_cookies. The oldest of too many end.
LOGIN = Script(f"""
{_NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[3] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

# KEYS: cookies. ARGV: digest max_age_ms. Returns whether the cookie was good, and is for as long.
RENEW = Script(f"""
{_NOW}
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not until_ms or tonumber(until_ms) <= now then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

# KEYS: cookies. ARGV: digest.
IS_LOGGED_IN = Script(f"""
{_NOW}
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
return until_ms and tonumber(until_ms) > now and 1 or 0
""")

# KEYS: cookies. ARGV: digest.
LOGOUT = Script("""
return redis.call('ZREM', KEYS[1], ARGV[1])
""")


def cookies_of(key_id: str) -> str:
    """Where the cookies of a key are."""
    return f"moss:{{access}}:cookies:{key_id}"
