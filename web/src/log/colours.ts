// The 256 colours of a terminal, and colours that can be read on the log's ground. PURE.

export type Rgb = readonly [number, number, number];

const BASE: Rgb[] = [
  [0, 0, 0], [205, 49, 49], [13, 188, 121], [229, 229, 16], [36, 114, 200], [188, 63, 188], [17, 168, 205], [229, 229, 229],
  [102, 102, 102], [241, 76, 76], [35, 209, 139], [245, 245, 67], [59, 142, 234], [214, 112, 214], [41, 184, 219], [255, 255, 255],
];

export function rgb(colour: number | Rgb): Rgb {
  if (typeof colour !== "number") return colour;
  if (colour < 16) return BASE[colour]!;
  if (colour >= 232) {
    const grey = 8 + (colour - 232) * 10;
    return [grey, grey, grey];
  }
  const level = (step: number): number => (step === 0 ? 0 : 55 + step * 40);
  const index = colour - 16;
  return [level(Math.floor(index / 36)), level(Math.floor(index / 6) % 6), level(index % 6)];
}

function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
}

export function contrast(a: Rgb, b: Rgb): number {
  const [x, y] = [luminance(a) + 0.05, luminance(b) + 0.05];
  return x > y ? x / y : y / x;
}

/** The colour, moved towards black or white until it has 3:1 on the ground. */
export function readable(colour: Rgb, dark: boolean): Rgb {
  const ground: Rgb = dark ? [18, 19, 23] : [255, 255, 255];
  const towards = dark ? 255 : 0;
  let now = colour;
  for (let step = 0; step < 20 && contrast(now, ground) < 3; step++) {
    now = now.map((value) => Math.round(value + (towards - value) * 0.15)) as unknown as Rgb;
  }
  return now;
}
