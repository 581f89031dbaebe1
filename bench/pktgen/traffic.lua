-- SPDX-License-Identifier: BSD-3-Clause
-- What the scripts say to pktgen, in one place: ports, frames for many ENIs, one trial, one result line. Written for the
-- Lua words of Pktgen-DPDK 23.03; where later ones differ, both are understood.
--
-- Settings come from the environment, since pktgen hands a script no arguments:
--   TRUNK=0            pktgen's port at the engine's trunk
--   TASKS=1            its ports at tasks, as "1,2,3": what arrives there is received
--   ENIS=120           ENIs, by consecutive VLANs, MACs and addresses
--   VLAN=101 MAC=0a:00:00:00:01:00 ADDRESS=10.0.0.10 ROUTER_MAC=0a:00:00:00:00:01   of the first ENI
--   SOURCES=997 PORTS=61   remote addresses (from 198.18.0.1) and remote ports (from 1024): primes, so that all
--                      combinations come, ENIS x SOURCES x PORTS flows
--   SIZES=64,512,1518  frame sizes with CRC
--   SECONDS=10         a trial; CONFIRM=60 the last one
--   RESULT=FILE        where result lines are appended; default: standard output
local traffic = {}

local function setting(name, default)
  local value = os.getenv(name)
  if value == nil or value == "" then return default end
  return type(default) == "number" and (tonumber(value) or error(name .. " is no number: " .. value)) or value
end

local function list(text)
  local values = {}
  for word in tostring(text):gmatch("[^,]+") do values[#values + 1] = tonumber(word) or error("no number: " .. word) end
  return values
end

function traffic.settings()
  return {
    trunk = setting("TRUNK", 0), tasks = list(setting("TASKS", "1")), enis = setting("ENIS", 120), vlan = setting("VLAN", 101),
    mac = setting("MAC", "0a:00:00:00:01:00"), address = setting("ADDRESS", "10.0.0.10"),
    router_mac = setting("ROUTER_MAC", "0a:00:00:00:00:01"), sources = setting("SOURCES", 997), ports = setting("PORTS", 61),
    port = setting("PORT", 80), sizes = list(setting("SIZES", "64,512,1518")), seconds = setting("SECONDS", 10),
    confirm = setting("CONFIRM", 60), settle = setting("SETTLE", 2), result = setting("RESULT", ""),
  }
end

-- "10.0.0.10" + 5 -> "10.0.0.15"
function traffic.address_after(address, count)
  local a, b, c, d = address:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  local number = ((a * 256 + b) * 256 + c) * 256 + d + count
  number = math.floor(number)
  return string.format("%d.%d.%d.%d", number // 16777216 % 256, number // 65536 % 256, number // 256 % 256, number % 256)
end

function traffic.mac_after(mac, count)
  local number = math.floor(tonumber((mac:gsub(":", "")), 16) + count)
  return (string.format("%012x", number):gsub("(..)", "%1:"):sub(1, 17))
end

-- pktgen.range.X today, pktgen.X in old ones.
local function range(name, port, ...)
  local fields = {"start", "inc", "min", "max"}
  local set = pktgen.range and pktgen.range[name] or pktgen[name]
  if set == nil then error("this pktgen has no range for " .. name) end
  for i, value in ipairs({...}) do set(port, fields[i], value) end
end

-- TCP or UDP towards all ENIs. VLAN, MAC and address go up together with each frame, and so stay those of one ENI.
function traffic.prepare(settings, size, protocol)
  local port = tostring(settings.trunk)
  local last = settings.enis - 1
  pktgen.reset(port)
  pktgen.set(port, "burst", 32)
  pktgen.set(port, "count", 0)
  pktgen.set(port, "size", size)
  pktgen.set_type(port, "ipv4")
  pktgen.set_proto(port, protocol)
  if pktgen.range and pktgen.range.ip_proto then pktgen.range.ip_proto(port, protocol) end
  range("dst_mac", port, settings.mac, "00:00:00:00:00:01", settings.mac, traffic.mac_after(settings.mac, last))
  range("src_mac", port, settings.router_mac, "00:00:00:00:00:00", settings.router_mac, settings.router_mac)
  range("vlan_id", port, settings.vlan, 1, settings.vlan, settings.vlan + last)
  range("dst_ip", port, settings.address, "0.0.0.1", settings.address, traffic.address_after(settings.address, last))
  range("src_ip", port, "198.18.0.1", "0.0.0.1", "198.18.0.1", traffic.address_after("198.18.0.1", settings.sources - 1))
  range("src_port", port, 1024, 1, 1024, 1024 + settings.ports - 1)
  range("dst_port", port, settings.port, 0, settings.port, settings.port)
  range("pkt_size", port, size, 0, size, size)
  pktgen.vlan(port, "on")
  if pktgen.set_range then pktgen.set_range(port, "on") else pktgen.range(port, "on") end
end

-- Packet counters of one port. Old words take "port" as a second argument, new ones refuse it; the rows are in a table by
-- port number in both, some builds leave that level out.
function traffic.counters(port)
  local text = tostring(port)
  local ok, stats = pcall(pktgen.portStats, text, "port")
  if not ok or type(stats) ~= "table" then stats = pktgen.portStats(text) end
  local row = stats[tonumber(port)] or stats[text] or stats
  row = row.curr or row.current or row
  return {sent = row.opackets or row.tx_pkts or error("portStats has no opackets"),
          received = row.ipackets or row.rx_pkts or error("portStats has no ipackets")}
end

-- Megabits a second. A virtual port states what its driver made up: a rate in per cent of it is nominal.
function traffic.link_speed(port)
  local state = pktgen.linkState(tostring(port))
  local text = type(state) == "table" and (state[tonumber(port)] or state[tostring(port)]) or state
  return tonumber(tostring(text):match("%d+")) or 0
end

function traffic.line_rate(settings, size)
  return traffic.link_speed(settings.trunk) * 1e6 / ((size + 4 + 20) * 8)  -- the tag, preamble and gap
end

-- One trial at a rate (per cent): what was sent on the trunk and received at the tasks, once the line is quiet.
function traffic.trial(settings, size, rate, seconds)
  local port = tostring(settings.trunk)
  pktgen.set(port, "rate", rate)
  pktgen.clr()
  pktgen.delay(200)
  local before, arrived = traffic.counters(settings.trunk).sent, 0
  for _, task in ipairs(settings.tasks) do arrived = arrived - traffic.counters(task).received end
  pktgen.start(port)
  pktgen.delay(math.floor(seconds * 1000))
  pktgen.stop(port)
  pktgen.delay(math.floor(settings.settle * 1000))
  local sent = traffic.counters(settings.trunk).sent - before
  for _, task in ipairs(settings.tasks) do arrived = arrived + traffic.counters(task).received end
  local full = traffic.line_rate(settings, size)
  return {sent = sent, received = arrived, pps = arrived / seconds, rate = full > 0 and 100 * sent / seconds / full or rate}
end

local function json(value)
  if type(value) == "string" then return '"' .. value:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end) .. '"' end
  if type(value) == "number" then return value == math.floor(value) and string.format("%d", math.floor(value)) or string.format("%.6g", value) end
  if type(value) ~= "table" then return value == nil and "null" or tostring(value) end
  local parts = {}
  if #value > 0 then
    for _, item in ipairs(value) do parts[#parts + 1] = json(item) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do parts[#parts + 1] = json(key) .. ":" .. json(value[key]) end
  return "{" .. table.concat(parts, ",") .. "}"
end
traffic.json = json

function traffic.result(settings, line)
  if settings.result == "" then
    print(json(line))
    return
  end
  local file = assert(io.open(settings.result, "a"))
  file:write(json(line), "\n")
  file:close()
end

return traffic
