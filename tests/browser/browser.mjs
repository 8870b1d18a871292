// A real Chromium, and what every page must keep to: no Content-Security-Policy violation, no script error, no
// request to a third host, no serious accessibility fault (axe-core).
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { chromium } from 'playwright-core';

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

export async function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS, headless: true });
}

function isLocal({ hostname }) {
  return hostname === '' || hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '127.0.0.1';
}

/** A browser of one person. Whatever a page does wrong is collected in `faults`. */
export async function person(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  const faults = [];
  const watch = (page) => {
    page.on('pageerror', (error) => faults.push(`script error at ${page.url()}: ${error.message}`));
    page.on('console', (message) => {
      if (/Content.Security.Policy|Refused to/i.test(message.text())) faults.push(`CSP at ${page.url()}: ${message.text()}`);
    });
    page.on('request', (request) => {
      // The identity provider's development pages ask for a font elsewhere; that is not ours.
      const theirs = process.env.IDP && request.frame().url().startsWith(process.env.IDP);
      if (!isLocal(new URL(request.url())) && !theirs) faults.push(`third host: ${request.url()}`);
    });
  };
  await context.route((url) => !isLocal(url), (route) => route.abort());
  context.on('page', watch);
  const page = await context.newPage();
  return { context, page, faults };
}

/** Serious accessibility faults of the page as it is now; none is what is asked for. */
export async function axe(page) {
  // The page's own policy forbids inline scripts; playwright evaluates beside it.
  await page.evaluate(axeSource);
  const found = await page.evaluate(async () => {
    const result = await globalThis.axe.run(document, { resultTypes: ['violations'] });
    return result.violations
      .filter((v) => v.impact === 'serious' || v.impact === 'critical')
      .map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(' | ')}`);
  });
  return found;
}

export function check(holds, what) {
  if (!holds) throw new Error(`does not hold: ${what}`);
  console.log(`  ok  ${what}`);
}

export async function says(page, text) {
  // a click may still be on its way
  await page.locator('body', { hasText: text }).waitFor({ timeout: 15000 }).catch(() => undefined);
  const shown = await page.textContent('body');
  check(shown.includes(text), `the page says “${text}”`);
}
