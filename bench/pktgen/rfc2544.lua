-- SPDX-License-Identifier: BSD-3-Clause
-- RFC 2544 throughput through the engine, trunk to tasks, for each frame size: NDR (no loss) and PDR (0.5 %).
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local search, traffic = require("search"), require("traffic")

local settings = traffic.settings()
for _, size in ipairs(settings.sizes) do
  traffic.prepare(settings, size, "udp")
  -- All flows once before anything counts, or the first trial pays for every first packet.
  traffic.trial(settings, size, 10, 2)
  for _, goal in ipairs({{name = "ndr", loss = 0}, {name = "pdr", loss = 0.005}}) do
    local found = search.highest(function(rate, seconds) return traffic.trial(settings, size, rate, seconds) end, {
      low = 0.5, high = 100, precision = 0.5, loss = goal.loss, votes = 3, seconds = settings.seconds,
      confirm_seconds = settings.confirm,
      note = function(rate, trial, lost)
        print(string.format("%s %d B: %.2f %%, sent %d, lost %.4f %%", goal.name, size, rate, trial.sent, 100 * lost))
      end})
    traffic.result(settings, {
      name = string.format("pktgen/%s/%d/enis:%d", goal.name, size, settings.enis), unit = "Mpps",
      value = found.rate / 100 * traffic.line_rate(settings, size) / 1e6, rate_percent = found.rate,
      bottleneck = found.limited_by, trials = found.trials, confirmed = found.confirmed})
  end
end
pktgen.quit()
