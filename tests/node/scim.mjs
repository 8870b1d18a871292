// The company's directory: a SCIM 2.0 server of npm `scimmy` and `scimmy-routers` on a free loopback port.
//
//   node scim.mjs     prints one line {"url": "http://127.0.0.1:PORT/scim"} when it is ready
//
// Bearer token: scim-secret. For the tests alone:
//   GET  /control/counts               {"users": <requests so far>}
//   POST /control/slow?ms=N            every answer waits N ms
//   POST /control/set?id=I&active=0|1  changes somebody
import { once } from 'node:events';
import express from 'express';
import SCIMMY from 'scimmy';
import SCIMMYRouters from 'scimmy-routers';

const OURS = 'urn:ietf:params:scim:schemas:extension:stagedoor:2.0:User';
const ENTERPRISE = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

const people = new Map();
function add(id, more) {
  people.set(id, {
    id, userName: `${id}@acme.example`, externalId: `ext-${id}`, displayName: `Person ${id}`, active: true,
    [ENTERPRISE]: { organization: 'acme' }, ...more,
  });
}
add('user_42', { roles: [{ value: 'customer' }] });
add('user_13', { active: false });
add('user_99', { roles: [{ value: 'customer' }, { value: 'protected', display: 'VIP' }] });
add('user_50', { [OURS]: { consentUntil: '2030-01-31T12:00:00Z', optedOut: true } });
add('a/b?c#d', {});

const { Attribute, SchemaDefinition } = SCIMMY.Types;
const impersonation = new SchemaDefinition('Impersonation', OURS, 'Consent to be impersonated', [
  new Attribute('dateTime', 'consentUntil'), new Attribute('boolean', 'optedOut'),
]);
SCIMMY.Schemas.declare(impersonation);
SCIMMY.Resources.declare(SCIMMY.Resources.User)
  .extend(SCIMMY.Schemas.EnterpriseUser)
  .extend(impersonation)
  .egress((resource) => {
    if (resource.id) {
      const found = people.get(resource.id);
      if (!found) throw new SCIMMY.Types.Error(404, null, `Resource ${resource.id} not found`);
      return found;
    }
    const all = [...people.values()];
    return resource.filter ? resource.filter.match(all) : all;
  });

const counts = { users: 0 };
let slow = 0;
const app = express();
app.use('/control', (req, res) => {
  if (req.path === '/slow') slow = Number(req.query.ms);
  if (req.path === '/set') people.get(req.query.id).active = req.query.active === '1';
  res.json(counts);
});
app.use(async (req, res, next) => {
  counts.users += 1;
  if (slow) await new Promise((done) => { setTimeout(done, slow); });
  next();
});
app.use('/scim', new SCIMMYRouters({
  type: 'bearer',
  handler: (req) => {
    if (req.header('authorization') !== 'Bearer scim-secret') throw new Error('who are you?');
    return 'stagedoor';
  },
}));

const server = app.listen(0, '127.0.0.1');
await once(server, 'listening');
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
console.log(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}/scim` }));
