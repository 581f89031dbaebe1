-- SPDX-License-Identifier: BSD-3-Clause
-- Full speed towards many ENIs, told apart by VLAN, in many flows: what arrives at the tasks' ports, a line a frame size.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local search, traffic = require("search"), require("traffic")

local settings = traffic.settings()
for _, size in ipairs(settings.sizes) do
  traffic.prepare(settings, size, "udp")
  traffic.trial(settings, size, 10, 2)
  local trial = traffic.trial(settings, size, 100, settings.seconds)
  traffic.result(settings, {
    name = string.format("pktgen/enis/%d/enis:%d", size, settings.enis), unit = "Mpps", value = trial.pps / 1e6,
    sent = trial.sent, received = trial.received, loss = search.loss(trial),
    flows = settings.enis * settings.sources * settings.ports})
end
pktgen.quit()
