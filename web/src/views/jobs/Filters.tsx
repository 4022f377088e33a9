// The filters of the list, as chips; all of them are in the address.

import { useState } from "preact/hooks";
import { Icon } from "../../parts/Icon.tsx";
import { Menu } from "../../parts/parts.tsx";
import { type Filter, NAMED, typed } from "../../state/filter.ts";
import { moment } from "../../state/format.ts";
import { change, settings } from "../../state/settings.ts";
import { COLUMNS, shown } from "./columns.ts";

export function Filters({ filter, onFilter }: { filter: Filter; onFilter: (filter: Filter) => void }) {
  const [text, setText] = useState("");
  const chips: { key: string; word: string; value: string; without: Filter }[] = [];
  const at = (time: string): string => moment(time, Date.now(), settings.value.times === "utc" ? "utc" : "local");
  if (filter.name !== "") chips.push({ key: "name", word: "name", value: `${filter.name}…`, without: { ...filter, name: "" } });
  for (const label of filter.labels) chips.push({ key: label, word: "label", value: label, without: { ...filter, labels: filter.labels.filter((one) => one !== label) } });
  for (const name of NAMED) if (filter[name] !== "") chips.push({ key: name, word: name, value: filter[name], without: { ...filter, [name]: "" } });
  if (filter.after !== "") chips.push({ key: "after", word: "created", value: `since ${at(filter.after)}`, without: { ...filter, after: "" } });
  if (filter.before !== "") chips.push({ key: "before", word: "created", value: `before ${at(filter.before)}`, without: { ...filter, before: "" } });
  return (
    <div class="filters">
      <form class="filter" role="search" aria-label="This list" onSubmit={(event) => {
        event.preventDefault();
        if (text.trim() !== "") onFilter(typed(filter, text, new Date()));
        setText("");
      }}>
        <Icon name="search" />
        {chips.map((chip) => (
          <span class="chip" key={chip.key}>{chip.word} <bdi class="mono">{chip.value}</bdi><button type="button" aria-label={`Without ${chip.word} ${chip.value}`} onClick={() => onFilter(chip.without)}><Icon name="close" /></button></span>
        ))}
        <input type="text" aria-label="Filter" placeholder={chips.length === 0 ? "name, team=web, queue:default, since:1h …" : "and …"} spellcheck={false} autocomplete="off" value={text} onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Backspace" && text === "" && chips.length > 0) onFilter(chips.at(-1)!.without);
            if (event.key === "Escape") event.currentTarget.blur();
          }} />
      </form>
      <Menu label="Columns" class="wide" items={COLUMNS.map(({ key, word }) => ({ key, word, checked: shown(key), run: () => change({ columns: COLUMNS.map((one) => one.key).filter((one) => (one === key ? !shown(one) : shown(one))).join(",") }) }))}>Columns <Icon name="down" /></Menu>
      <Menu label={`${filter.order === "desc" ? "Newest first" : "Oldest first"}: order and size`} class="wide" items={[
        { key: "desc", word: "Newest first", run: () => onFilter({ ...filter, order: "desc" }) },
        { key: "asc", word: "Oldest first", run: () => onFilter({ ...filter, order: "asc" }) },
        ...([50, 100, 200] as const).map((size) => ({ key: String(size), word: `${size} a page`, run: () => change({ pageSize: size }) })),
        { key: "density", word: settings.value.density === "dense" ? "Two lines a job" : "One line a job", run: () => change({ density: settings.value.density === "dense" ? "calm" : "dense" }) },
      ]}>{filter.order === "desc" ? "Newest first" : "Oldest first"} <Icon name="down" /></Menu>
    </div>
  );
}
