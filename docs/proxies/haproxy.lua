-- Asks Stagedoor whether a request may pass: `http-request lua.stagedoor URL`. Only 200 lets it pass; 401 and 403 go
-- back to the caller with their challenge; anything else, no answer included, is 503.
local identity = { "x-stagedoor-user", "x-stagedoor-actor", "x-stagedoor-scopes", "x-stagedoor-grant", "impersonated" }

local function first(headers, name)
	return headers and headers[name] and headers[name][0]
end

local function refuse(txn, status, challenge)
	local reply = txn:reply({ status = status })
	if challenge then
		reply:add_header("www-authenticate", challenge)
	end
	txn:done(reply)
end

core.register_action("stagedoor", { "http-req" }, function(txn, url)
	-- Every Authorization header goes along, so that Stagedoor sees a doubled one. Header tables count from 0 here.
	local ask, sent = {}, txn.http:req_get_headers()["authorization"]
	if sent then
		local values = {}
		for i = 0, #sent do
			table.insert(values, sent[i])
		end
		ask["authorization"] = values
	end
	local asked, answer = pcall(function()
		return core.httpclient():get({ url = url, headers = ask, timeout = 2000 })
	end)
	if not asked or not answer then
		return refuse(txn, 503)
	elseif answer.status == 401 or answer.status == 403 then
		return refuse(txn, answer.status, first(answer.headers, "www-authenticate"))
	elseif answer.status ~= 200 then
		return refuse(txn, 503)
	end
	for _, name in ipairs(identity) do
		local value = first(answer.headers, name)
		if not value then
			return refuse(txn, 503)
		end
		txn.http:req_set_header(name, value)
	end
end, 1)
