// The whole story: an agent steps in through the console and through the product's own list, looks, is refused
// what is not his to do, and is himself again; the auditor proves it; the red button ends it in two browsers.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { axe, check, launch, person, says } from './browser.mjs';

const { STAGEDOOR: stagedoor, PRODUCT_PORT: port, AGENT = 'agent_1', ADMIN = 'admin_7' } = process.env;
const home = `http://localhost:${port}`;
const as = `http://as.localhost:${port}`;
const shots = process.env.SHOTS;
const HOSTILE = 'Ticket 4711: <img src=x onerror=alert(1)> \u202etxt.exe 😀 ' + 'x'.repeat(200);

const browser = await launch();
const everybody = [];
const newPerson = async (options) => { const one = await person(browser, options); everybody.push(one); return one; };
const shot = async (page, name) => { if (shots) await page.screenshot({ path: `${shots}/${name}.png` }); };
const accessible = async (page, what) => {
  const found = await axe(page);
  check(found.length === 0, `axe finds no serious fault on ${what} ${found.join('; ')}`);
};

/** Signs in to the console, by the demo's page or at the identity provider. */
async function signIn(page, who) {
  await page.goto(`${stagedoor}/console`);
  if (await page.$('#sub')) {
    await page.fill('#sub', who);
    await page.click('form:has(#sub) button');
  } else {
    await page.click('text=Sign in >> nth=-1');
    await page.fill('input[name=login]', who);
    await page.fill('input[name=password]', 'any');
    await page.click('button[type=submit]');
    await page.waitForLoadState();
    if (new URL(page.url()).origin !== stagedoor) await page.click('button[type=submit]');
  }
  await page.waitForURL((url) => url.origin === stagedoor && !url.pathname.startsWith('/console/sign-in'));
}

/** Starts from the console; ends on the product's page. */
async function start(page, user, reason, { change = false } = {}) {
  await page.goto(`${stagedoor}/console/support?q=${user}`);
  await page.click(`.people a:has-text("${user}")`);
  await page.fill('#reason', reason);
  if (change) await page.check('input[value=change]');
  await page.click('.verdict form button');
  await page.waitForURL(`${as}/`);
}


console.log('An agent, through the console');
const agent = await newPerson();
await agent.page.goto(`${stagedoor}/console`);
await accessible(agent.page, 'the sign-in');
await shot(agent.page, '01-sign-in');
await signIn(agent.page, AGENT);
await accessible(agent.page, 'the support page');
await shot(agent.page, '02-support');
await agent.page.fill('#q', 'user_');
await agent.page.click('text=Search');
await accessible(agent.page, 'the list of users');
await shot(agent.page, '03-found');
await agent.page.goto(`${stagedoor}/console/support/user?id=user_99`);
await says(agent.page, 'You may not act as this user');
await shot(agent.page, '05-may-not');
await agent.page.goto(`${stagedoor}/console/support/user?id=user_42`);
await says(agent.page, 'You may act as this user');
await agent.page.fill('#reason', 'Ticket 4711: the invoice is missing');
await agent.page.fill('#ticket', '4711');
await accessible(agent.page, 'a user');
await shot(agent.page, '04-user');
await agent.page.fill('#reason', 'short');
await agent.page.click('.verdict form button');
await agent.page.waitForURL(/console\/handoff/);
await says(agent.page, 'Give a reason of at least 10 characters.');
await start(agent.page, 'user_42', HOSTILE);
await says(agent.page, 'Orders of Mary');
await agent.page.waitForSelector('stagedoor-banner[data-state=on]');
check(await agent.page.getAttribute('html', 'data-impersonated') === 'true', 'the document knows that it is impersonated');
await accessible(agent.page, 'the product under the banner');
await shot(agent.page, '06-banner');
const cookies = await agent.context.cookies();
check(!cookies.some((c) => c.domain === 'localhost' && c.name.includes('stagedoor-session')), 'the token is on the other host only');
check(!agent.page.url().includes('code') && !agent.page.url().includes('ey'), 'neither code nor token stands in the address');
await agent.page.click('text=Address');
await agent.page.fill('input[name=address]', '1 New Street');
await agent.page.click('text=Change');
await says(agent.page, 'You may look only');
await agent.page.goto(`${as}/password`);
await says(agent.page, 'This page is for the customer alone');
await shot(agent.page, '07-refused');
await agent.page.goto(`${as}/`);
await agent.page.waitForSelector('stagedoor-banner[data-state=on]');

console.log('His running impersonation, and Stop');
const second = await agent.context.newPage();
await second.goto(`${stagedoor}/console/support`);
await says(second, 'You are acting as');
await shot(second, '08-running');
await second.close();
await agent.page.getByRole('button', { name: 'Stop' }).click();
await agent.page.waitForURL(`${home}/`);
await agent.page.goBack().catch(() => {});
await agent.page.waitForLoadState();
const left = await agent.page.textContent('body');
check(!left.includes('Difference engine'), 'back after stop shows nothing private');
await agent.page.goto(`${as}/`);
check(!(await agent.page.textContent('body')).includes('Difference engine'), 'nor does asking again');

console.log('An admin, through the product itself (S1, S2, S6)');
const admin = await newPerson();
await admin.page.goto(home);
await admin.page.fill('input[name=user]', ADMIN);
await admin.page.fill('input[name=password]', 'demo');
await admin.page.click('button[type=submit]');
await says(admin.page, 'Hello Alan');
await admin.page.click('text=Users');
await shot(admin.page, '09-users');
await accessible(admin.page, 'the list of users in the product');
const row = admin.page.locator('tr', { hasText: 'user_43' });
await row.locator('input').fill('Ticket 4712: ribbon does not fit');
await row.locator('button').click();
await admin.page.waitForURL(`${as}/`);
await says(admin.page, 'Orders of Ken');
await admin.page.waitForSelector('stagedoor-banner[data-state=on]');
await admin.page.getByRole('button', { name: 'Stop' }).click();
await admin.page.waitForURL(`${home}/`);
await says(admin.page, 'Hello Alan');
check(true, 'after stop the admin is himself again');
const refused = await admin.context.request.post(`${home}/impersonate/nobody`, { data: { reason: 'a long enough reason' }, headers: { origin: home } });
check(refused.status() === 404 && (await refused.json()).message.includes('no user'), 'an unknown user gets a clear 404');

if (process.env.FRONT_END) {
  console.log('A front end on another port (S1, S2)');
  const frontEnd = new URL(process.env.FRONT_END);
  const server = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end('<title>front end</title>'));
  await new Promise((done) => { server.listen(Number(frontEnd.port), '127.0.0.1', done); });
  const page = await admin.context.newPage();
  await page.goto(frontEnd.href);
  const ask = (path, options) => page.evaluate(async ([address, more]) => {
    const answer = await fetch(address, { credentials: 'include', ...more });
    return { status: answer.status, body: await answer.json() };
  }, [`${home}${path}`, options]);
  const post = (body) => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  check((await ask('/me')).body.user === ADMIN, 'the front end knows who is signed in');
  const unknown = await ask('/impersonate/nobody', post({ reason: 'a long enough reason' }));
  check(unknown.status === 404 && unknown.body.message.includes('no user'), 'it can show why an unknown user fails');
  const begun = await ask('/impersonate/user_42', post({ reason: 'Ticket 4716: from the front end' }));
  check(begun.status === 200, 'it starts an impersonation');
  await page.goto(begun.body.go_to);
  await page.waitForURL(`${as}/`);
  await page.waitForSelector('stagedoor-banner[data-state=on]');
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.waitForURL(`${home}/`);
  await page.close();
  const stranger = await admin.context.newPage();
  await stranger.goto(`${stagedoor}/healthz`);
  const got = await stranger.evaluate((address) => fetch(address, { credentials: 'include' }).then(() => 'an answer', () => 'nothing'), `${home}/me`);
  check(got === 'nothing', 'another origin gets nothing');
  await stranger.close();
  server.close();
}

console.log('One who may not');
const customer = await newPerson();
await customer.page.goto(home);
await customer.page.fill('input[name=user]', 'user_42');
await customer.page.fill('input[name=password]', 'demo');
await customer.page.click('button[type=submit]');
check((await customer.page.goto(`${home}/users`)).status() === 403, 'a customer gets 403 for the list of users');
const denied = await customer.context.request.post(`${home}/impersonate/user_43`, { data: { reason: 'a long enough reason' }, headers: { origin: home } });
check(denied.status() === 403, 'and 403 for the start itself');

console.log('An auditor');
const auditor = await newPerson();
await signIn(auditor.page, process.env.AUDITOR ?? ADMIN);
await auditor.page.goto(`${stagedoor}/console/audit`);
await accessible(auditor.page, 'the log');
await shot(auditor.page, '10-log');
await auditor.page.goto(`${stagedoor}/console/audit?typ=redeem&user_id=user_42&actor=${AGENT}`);
await auditor.page.click('[aria-label=Entries] td a');
await says(auditor.page, 'Redeemed');
await says(auditor.page, 'Stopped');
const shown = await auditor.page.textContent('.timeline');
check(shown.includes('<img src=x onerror=alert(1)>') && shown.includes('⟨U+202E⟩') && shown.includes('😀'), 'a hostile reason is shown as text');
await accessible(auditor.page, 'the life of a grant');
await shot(auditor.page, '11-grant');
await auditor.page.click('.timeline a >> nth=0');
await auditor.page.click('[data-prove]');
await auditor.page.waitForSelector('[data-state=holds],[data-state=fails]');
check((await auditor.page.getAttribute('[data-proof]', 'data-state')) === 'holds', `Prove it: ${await auditor.page.textContent('[data-proof]')}`);
const [proof] = await Promise.all([auditor.page.waitForEvent('download'), auditor.page.click('text=Download proof')]);
check(/^stagedoor-entry-\d+\.tlog-proof$/.test(proof.suggestedFilename()), 'the proof can be taken along');
check(readFileSync(await proof.path(), 'utf8').startsWith('c2sp.org/tlog-proof@v1\n'), 'it is a proof as others verify it');
await accessible(auditor.page, 'an entry');
await shot(auditor.page, '12-proved');
await auditor.page.goto(`${stagedoor}/console/audit`);
await auditor.page.click('[data-watch]');
await auditor.page.waitForSelector('[data-state=holds],[data-state=fails]');
check((await auditor.page.textContent('[data-proof]')).includes('unchanged since your last visit'), 'the log only grew');
const [download] = await Promise.all([auditor.page.waitForEvent('download'), auditor.page.click('text=Export CSV')]);
check(download.suggestedFilename() === 'stagedoor-log.csv', 'the log is exported');

console.log('The red button, with two browsers open');
await start(agent.page, 'user_42', 'Ticket 4713: look again');
const other = await newPerson();
await signIn(other.page, ADMIN);
await start(other.page, 'user_43', 'Ticket 4714: look as well');
await agent.page.waitForSelector('stagedoor-banner[data-state=on]');
await other.page.waitForSelector('stagedoor-banner[data-state=on]');
const officer = await newPerson();
await signIn(officer.page, process.env.OFFICER ?? ADMIN);
await officer.page.goto(`${stagedoor}/console/security`);
await accessible(officer.page, 'the security page');
const form = officer.page.locator('.red form');
await form.locator('input[name=reason]').fill('drill');
check(await form.locator('button').isDisabled(), 'the red button waits for the typed words');
await form.locator('input[name=typed]').fill('stop everything');
await shot(officer.page, '13-security');
await form.locator('button').click();
await officer.page.waitForURL(/entry=/);
const stoppedAt = Date.now();
await says(officer.page, 'live grants ended');
const over = async (name, one) => {
  const answer = await one.page.goto(`${as}/address`);
  check(one.page.url() === `${as}/over` && answer.status() === 200, `the ${name} browser's next click is refused`);
  await says(one.page, 'The impersonation is over');
};
await over('first', agent);
check(Date.now() - stoppedAt < 3000, `within ${Date.now() - stoppedAt} ms of the red button, page loads included`);
// the banner asks every two seconds
await other.page.waitForFunction(() => !document.documentElement.dataset.impersonated, null, { timeout: 6000 });
check(true, "the second browser's banner says that it is over");
await over('second', other);
await shot(agent.page, '14-over');

console.log('The banner learns of a stop elsewhere by itself');
// A revocation works from the next second on; what is minted then is new.
await agent.page.waitForTimeout(1500);
await start(agent.page, 'user_42', 'Ticket 4715: once more');
await agent.page.waitForSelector('stagedoor-banner[data-state=on]');
await other.page.goto(`${stagedoor}/console/security`);
await other.page.locator('tr', { hasText: AGENT }).locator('button').first().click();
await other.page.waitForURL(/entry=/);
await agent.page.waitForFunction(() => !document.documentElement.dataset.impersonated, null, { timeout: 6000 });
check(true, 'the banner says that it is over');
await shot(agent.page, '15-ended');

const faults = everybody.flatMap((one) => one.faults);
check(faults.length === 0, `no CSP violation, script error or third host ${faults.join('; ')}`);
await browser.close();
console.log('THE STORY HOLDS');
