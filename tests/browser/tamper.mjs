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
await page.evaluate(() => {
  const kept = JSON.parse(localStorage.getItem('stagedoor-log'));
  localStorage.setItem('stagedoor-log', JSON.stringify({ ...kept, size: kept.size + 1000 }));
});
await page.goto(`${stagedoor}/console/audit`);
const watch = async () => {
  await page.click('[data-watch]');
  await page.waitForSelector('[data-state=holds],[data-state=fails]');
  return page.textContent('[data-proof]');
};
check((await watch()).includes('entries were removed'), 'a log that was cut is noticed');
await page.evaluate(() => {
  const kept = JSON.parse(localStorage.getItem('stagedoor-log'));
  localStorage.setItem('stagedoor-log', JSON.stringify({ ...kept, size: 1, root: btoa('x'.repeat(32)) }));
});
check((await watch()).includes('the log was rewritten'), 'a log that was rewritten is noticed');
await page.evaluate(() => {
  const kept = JSON.parse(localStorage.getItem('stagedoor-log'));
  localStorage.setItem('stagedoor-log', JSON.stringify({ ...kept, vkey: 'another' }));
});
check((await watch()).includes('another key'), 'a log under another key is noticed');
check(faults.length === 0, `no CSP violation, script error or third host ${faults.join('; ')}`);
await browser.close();
