// What is asked of the look of every view: axe, and that it fits a small screen.

import { readFile } from "node:fs/promises";
import { axe } from "./harness.mjs";

/** axe comes into the tab before any script of the page runs. */
export async function bringAxe(page) {
  await page.addInitScript({ content: await readFile(axe, "utf8") });
}

/** What axe finds in the present view. */
export async function findings(page) {
  return await page.evaluate(async () => {
    // A script of the test, not of the page: the policy of the page does not hold for it.
    const { violations } = await globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
    return violations.map((one) => `${one.id}: ${one.nodes.slice(0, 4).map((node) => `${node.html.slice(0, 160)} ${node.any.map((check) => check.message).join(" ").slice(0, 200)}`).join("\n    ")}`);
  });
}

/** What of the present view is beyond the edge of the screen, makes it scroll sideways, or is too small for a finger. */
export async function misfits(page) {
  return await page.evaluate(() => {
    const edge = document.documentElement.clientWidth;
    const hidden = (node) => {
      for (let at = node.parentElement; at; at = at.parentElement) if (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(at).overflowX)) return true;
      return false;
    };
    const body = document.querySelector(".body");
    const far = [...document.querySelectorAll(".app *, dialog *")].filter((node) => node.getBoundingClientRect().right > edge + 1 && node.getBoundingClientRect().width > 0 && !hidden(node));
    const sideways = [document.documentElement, body, document.querySelector("dialog")].filter((node) => node && node.scrollWidth > node.clientWidth + 1);
    const small = [...document.querySelectorAll("button, a.btn, input, select")].filter((node) => {
      const { width, height } = node.getBoundingClientRect();
      return width > 0 && height > 0 && (width < 23.5 || height < 23.5) && node.type !== "checkbox" && node.type !== "range" && node.closest(".xterm, .spoken") === null;
    });
    return [...far.map((node) => `beyond the edge: ${node.outerHTML.slice(0, 120)}`), ...sideways.map((node) => `scrolls: ${node.className || node.tagName} ${node.scrollWidth} > ${node.clientWidth}`), ...small.map((node) => `small: ${node.outerHTML.slice(0, 120)}`)].slice(0, 6);
  });
}
