// A small chart of what was seen since the view was opened.

export function Spark({ values, most, colour, label }: { values: number[]; most: number; colour: "violet" | "blue"; label: string }) {
  const top = Math.max(most, ...values, 1e-9);
  const step = values.length > 1 ? 288 / (values.length - 1) : 0;
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${(43 - (value / top) * 41).toFixed(1)}`);
  if (points.length < 2) return <svg class="spark" viewBox="0 0 288 44" aria-hidden="true" />;
  return (
    <svg class="spark" viewBox="0 0 288 44" preserveAspectRatio="none" role="img" aria-label={label}>
      <polygon points={`0,44 ${points.join(" ")} 288,44`} fill={`var(--${colour}-fill)`} opacity=".15" />
      <polyline points={points.join(" ")} fill="none" stroke={`var(--${colour}-fill)`} stroke-width="1.6" vector-effect="non-scaling-stroke" />
    </svg>
  );
}
