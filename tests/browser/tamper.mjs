// An auditor keeps a checkpoint; somebody changes a row; "Prove it" says no.
import { createInterface } from 'node:readline/promises';
import { check, launch, person } from './browser.mjs';

const { STAGEDOOR: stagedoor } = process.env;
const browser = await launch();
const { page, faults } = await person(browser);
await page.goto(`${stagedoor}/console`);
await page.fill('#sub', 'admin_7');
await page.click('form:has(#sub) button');
await page.waitForURL(/console\/support/);

// An entry about a person: the question whether he may act.
await page.goto(`${stagedoor}/console/support/user?id=user_42`);
await page.goto(`${stagedoor}/console/audit?typ=explain`);
await page.click('[aria-label=Entries] th a');
const index = Number((await page.textContent('h1')).replace(/\D/g, ''));
const prove = async () => {
  await page.click('[data-prove]');
  await page.waitForSelector('[data-state=holds],[data-state=fails]');
  return [await page.getAttribute('[data-proof]', 'data-state'), await page.textContent('[data-proof]')];
};
let [state, said] = await prove();
check(state === 'holds', `before: ${said}`);

console.log(`TAMPER WITH ${index}`);
const input = createInterface({ input: process.stdin });
await input.question('');
input.close();

await page.reload();
[state, said] = await prove();
check(state === 'fails' && said.includes('it was changed'), `after: ${said}`);

// A log that is shorter than it was, or signed by another key, is noticed as well.
const change = (changes, name) => page.evaluate(([more, other]) => {
  const [[origin, kept]] = Object.entries(JSON.parse(localStorage.getItem('stagedoor-log')));
  const size = kept.size + (more.grown ?? 0);
  localStorage.setItem('stagedoor-log', JSON.stringify({ [other ?? origin]: { ...kept, size, ...more } }));
}, [changes, name]);
await change({ grown: 1000 });
await page.goto(`${stagedoor}/console/audit`);
const watch = async () => {
  await page.click('[data-watch]');
  await page.waitForSelector('[data-state=holds],[data-state=fails],[data-state=new]');
  return page.textContent('[data-proof]');
};
check((await watch()).includes('entries were removed'), 'a log that was cut is noticed');
await page.evaluate(() => localStorage.setItem('stagedoor-log', ''));
await watch();
await page.evaluate(() => {
  const [kept] = Object.values(JSON.parse(localStorage.getItem('stagedoor-log')));
  localStorage.setItem('stagedoor-log', JSON.stringify(kept));
});
check((await watch()).includes('unchanged since your last visit'), 'what was kept before logs had names still counts');
await change({ size: 1, root: btoa('x'.repeat(32)) });
check((await watch()).includes('the log was rewritten'), 'a log that was rewritten is noticed');
await change({ vkey: 'another' });
check((await watch()).includes('another key'), 'a log under another key is noticed');

// A log of another name is no alarm, nor is it taken unasked.
await change({ size: 310 }, 'shop.example/audit/1');
said = await watch();
check(said.includes('shop.example/audit/1, 310 entries') && await page.getAttribute('[data-proof]', 'data-state') === 'new', `a new log is named: ${said}`);
check((await watch()).includes('another log'), 'and asked about until it is accepted');
await page.click('text=Accept the new log');
await page.waitForSelector('[data-state=holds]');
check((await watch()).includes('unchanged since your last visit'), 'once accepted it is the one that must grow');
await page.evaluate(() => {
  const kept = JSON.parse(localStorage.getItem('stagedoor-log'));
  kept['shop.example/audit/1'].at = Date.now() + 1000;
  localStorage.setItem('stagedoor-log', JSON.stringify(kept));
});
check((await watch()).includes('is an old log'), 'a log that was followed by another does not come back');
check(faults.length === 0, `no CSP violation, script error or third host ${faults.join('; ')}`);
await browser.close();
