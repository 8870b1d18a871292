// A colleague's approval: the agent waits, somebody else sees who asks for whom and why, and the agent's start goes
// on by itself; or it is refused, and nothing starts.
import { axe, check, launch, person, says } from './browser.mjs';

const { STAGEDOOR: stagedoor, PRODUCT_PORT: port } = process.env;
const as = `http://as.localhost:${port}`;
const HOSTILE = 'Ticket 4711: <img src=x onerror=alert(1)> \u202etxt.exe 😀';
const browser = await launch();
const accessible = async (page, what) => {
  const found = await axe(page);
  check(found.length === 0, `axe finds no serious fault on ${what} ${found.join('; ')}`);
};

async function signIn(who) {
  const one = await person(browser);
  await one.page.goto(`${stagedoor}/console`);
  await one.page.fill('#sub', who);
  await one.page.click('form:has(#sub) button');
  await one.page.waitForURL((url) => url.origin === stagedoor && !url.pathname.startsWith('/console/sign-in'));
  return one;
}

async function ask(agent, user, reason) {
  await agent.page.goto(`${stagedoor}/console/support/user?id=${user}`);
  await agent.page.fill('#reason', reason);
  await agent.page.check('input[value=change]');
  await agent.page.click('.verdict form button');
  await agent.page.waitForURL(/console\/support\/request/);
  await says(agent.page, 'Waiting for a colleague');
}

const [agent, colleague] = [await signIn('agent_1'), await signIn('admin_7')];
await ask(agent, 'user_42', HOSTILE);
await accessible(agent.page, 'the request that waits');
const own = await agent.context.newPage();
await own.goto(`${stagedoor}/console/approvals`);
await says(own, 'No request waits for you');
await own.goto(`${stagedoor}/console/support`);
await says(own, 'You asked a colleague');
check(!(await own.textContent('body')).includes('You are acting as'), 'nothing runs before');
await own.close();

await colleague.page.goto(`${stagedoor}/console/approvals`);
const request = colleague.page.locator('section.verdict', { hasText: 'user_42' });
const shown = await request.textContent();
check(shown.includes('agent_1') && shown.includes('<img src=x onerror=alert(1)>') && shown.includes('⟨U+202E⟩'), 'who, whom and why, as text');
await accessible(colleague.page, 'the approvals');
await request.getByRole('button', { name: /^Approve/ }).click();
await colleague.page.waitForURL(/done=approve/);
await says(colleague.page, 'Approved. Your colleague can go on.');
await agent.page.waitForURL(`${as}/`);
await agent.page.waitForSelector('stagedoor-banner[data-state=on]');
check(true, "the agent's start goes on by itself");

await ask(agent, 'user_43', 'Ticket 4712: the address is wrong');
await colleague.page.goto(`${stagedoor}/console/approvals`);
await colleague.page.locator('section.verdict', { hasText: 'user_43' }).getByRole('button', { name: /^Refuse/ }).click();
await colleague.page.waitForURL(/done=refuse/);
await agent.page.waitForSelector('text=A colleague refused');
await accessible(agent.page, 'a refused request');

const faults = [agent, colleague].flatMap((one) => one.faults);
check(faults.length === 0, `no CSP violation, script error or third host ${faults.join('; ')}`);
await browser.close();
console.log('THE APPROVAL HOLDS');
