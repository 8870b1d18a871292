// What ends says so: an impersonation that expires while somebody looks, a console session that is gone, a form of
// another session, a page nobody may see.
import { createInterface } from 'node:readline';
import { axe, check, launch, person, says } from './browser.mjs';

const { STAGEDOOR: stagedoor, PRODUCT_PORT: port, CLIENT_SECRET: secret } = process.env;
const as = `http://as.localhost:${port}`;
const browser = await launch();
const one = await person(browser);
const { page, context, faults } = one;

console.log('An impersonation that expires while somebody looks');
const minted = await fetch(`${stagedoor}/v1/actor_tokens`, {
  method: 'POST',
  headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
  body: JSON.stringify({ user_id: 'user_42', actor: { sub: 'agent_1' }, reason: 'Ticket 4711: a short look', expires_in_seconds: 6 }),
});
const { token } = await minted.json();
await context.addCookies([{ name: '__Host-stagedoor-session', value: token, domain: 'as.localhost', path: '/', secure: true, httpOnly: true, sameSite: 'Lax' }]);
// The product's own style sheet tries to hide it.
const HIDING = 'stagedoor-banner{display:none;opacity:0;visibility:hidden;height:0;position:absolute;left:-9999px;clip-path:inset(50%)}';
await page.route('**/product.css', (route) => route.fulfill({ contentType: 'text/css', body: HIDING }));
await page.goto(`${as}/`);
await says(page, 'Orders of Mary');
await page.waitForSelector('stagedoor-banner[data-state=on]');
const banner = (selector) => page.locator('stagedoor-banner').locator(selector);
check(await banner('div.warn').count() === 1, 'the banner warns in the last minute');
check((await banner('.sr').textContent()).includes('Less than a minute'), 'and says so to screen readers');
const box = await page.locator('stagedoor-banner').boundingBox();
const style = await page.locator('stagedoor-banner').evaluate((e) => ((s) => [s.opacity, s.visibility, s.display, s.clipPath])(getComputedStyle(e)));
check(box.x >= 0 && box.height > 20 && String(style) === '1,visible,block,none', `the page cannot hide it by accident (${style})`);
await page.waitForFunction(() => !document.documentElement.dataset.impersonated, null, { timeout: 15000 });
check((await banner('p').first().textContent()).includes('is over'), 'the banner says that it is over');
await page.goto(`${as}/address`);
check(!(await page.textContent('body')).includes('London'), 'the next click shows nothing private');

console.log('A console session that is gone');
await page.goto(`${stagedoor}/console`);
await page.fill('#sub', 'agent_1');
await page.click('form:has(#sub) button');
await page.waitForURL(/console\/support/);
await page.goto(`${stagedoor}/console/support/user?id=user_42`);
await context.clearCookies();
await page.fill('#reason', 'Ticket 4711: invoice missing');
await page.click('.verdict form button');
await page.waitForURL(/console\/sign-in/);
await says(page, 'Sign in');

console.log('A form of another session does nothing');
await page.fill('#sub', 'agent_1');
await page.click('form:has(#sub) button');
await page.waitForURL(/console\/support/);
await page.goto(`${stagedoor}/console/support/user?id=user_42`);
const other = await context.newPage();
await context.clearCookies();
await other.goto(`${stagedoor}/console/sign-in`);
await other.fill('#sub', 'admin_7');
await other.click('form:has(#sub) button');
await other.waitForURL(/console\/support/);
await page.fill('#reason', 'Ticket 4711: invoice missing');
await page.click('.verdict form button');
await says(page, 'This form is out of date');
const found = await axe(page);
check(found.length === 0, `axe finds no serious fault on an error page ${found.join('; ')}`);
const forged = await context.request.post(`${stagedoor}/console/security/stop`, {
  form: { word: 'x', reason: 'forged', typed: 'stop everything' }, headers: { origin: 'https://evil.example' },
});
check(forged.status() === 403, 'the red button does not answer other sites');

console.log('A policy that changed in between');
// The test outside changes what this run stands on, and says when it is done.
const outside = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const hand = async (what) => {
  console.log(`DO ${what}`);
  await outside.next();
};
await other.goto(`${stagedoor}/console/support/user?id=user_42`);
await other.fill('#reason', 'Ticket 4711: invoice missing');
await hand('forbid');
await other.click('.verdict form button');
await says(other, 'not-now');
check(!(await other.textContent('body')).includes('Open the product'), 'what was allowed when the page was shown is refused now');
await hand('permit');
await other.goto(`${stagedoor}/console/support/user?id=user_42`);
check(await other.locator('.verdict form button').count() === 1, 'and allowed again once the policy is as it was');

console.log('Phone width, dark, keyboard');
const phone = await person(browser, { viewport: { width: 360, height: 740 }, colorScheme: 'dark' });
await phone.page.goto(`${stagedoor}/console/sign-in`);
await phone.page.fill('#sub', 'admin_7');
await phone.page.keyboard.press('Enter');
await phone.page.waitForURL(/console\/support/);
for (const place of ['support?q=user', 'support/user?id=user_42', 'audit', 'security']) {
  await phone.page.goto(`${stagedoor}/console/${place}`);
  const wide = await phone.page.evaluate(() => document.documentElement.scrollWidth);
  check(wide <= 360, `${place} fits a phone (${wide})`);
  const faulty = await axe(phone.page);
  check(faulty.length === 0, `axe finds no serious fault on ${place} in the dark ${faulty.join('; ')}`);
}
await phone.page.keyboard.press('Tab');
check((await phone.page.evaluate(() => document.activeElement.textContent)).includes('Skip'), 'the first key leads past the header');

console.log('A server that is gone');
// The banner of somebody whose own clock is an hour ahead.
const held = await (await fetch(`${stagedoor}/v1/actor_tokens`, {
  method: 'POST',
  headers: { authorization: `Bearer ${secret}`, 'content-type': 'application/json' },
  body: JSON.stringify({ user_id: 'user_42', actor: { sub: 'agent_1' }, reason: 'Ticket 4711: a longer look', expires_in_seconds: 300 }),
})).json();
const agent = await person(browser);
await agent.context.addInitScript('{ const now = Date.now; Date.now = () => now() + 3600_000; }');
await agent.context.addCookies([{ name: '__Host-stagedoor-session', value: held.token, domain: 'as.localhost', path: '/', secure: true, httpOnly: true, sameSite: 'Lax' }]);
await agent.page.goto(`${as}/`);
await agent.page.waitForSelector('stagedoor-banner[data-state=on]');
const counts = await agent.page.locator('stagedoor-banner').locator('time').textContent();
check(/[45]:\d\d/.test(counts), `the banner counts what is left, whatever its own clock says (${counts})`);
await agent.page.goto(`http://localhost:${port}/`);
await agent.page.evaluate((action) => {
  const form = Object.assign(document.createElement('form'), { method: 'post', action });
  document.body.append(form);
  form.submit();
}, `${as}/address`);
await says(agent.page, 'This came from another site.');
await agent.page.goto(`${as}/`);
await agent.page.waitForSelector('stagedoor-banner[data-state=on]');
await phone.page.goto(`${stagedoor}/console/support/user?id=user_42`);
await phone.page.fill('#reason', 'Ticket 4711: invoice missing');
const before = phone.page.url();
// what the browser itself says of a connection that is refused is no fault of the page
const heard = phone.faults.length;
await hand('stop');
await phone.page.click('.verdict form button');
await says(phone.page, 'Nothing was sent');
check(phone.page.url() === before, 'the page stays');
check(await phone.page.inputValue('#reason') === 'Ticket 4711: invoice missing', 'and what was written stays');
phone.faults.length = heard;
const state = () => agent.page.evaluate(async () => (await fetch('/impersonation/state')).status);
for (let tries = 0; await state() === 200 && tries < 60; tries++) await agent.page.waitForTimeout(250);
check(await state() === 503, 'the product says that it cannot judge the token now');
await agent.page.waitForTimeout(3000);
check(await agent.page.getAttribute('html', 'data-impersonated') === 'true', 'and the banner does not say that it is over');

const all = [...faults, ...phone.faults, ...agent.faults];
check(all.length === 0, `no CSP violation, script error or third host ${all.join('; ')}`);
await browser.close();
process.stdin.destroy();
