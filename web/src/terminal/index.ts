// What needs xterm: it comes when it is first opened.

export { default as Player } from "./Player.tsx";
export { default as Terminal } from "./Terminal.tsx";
