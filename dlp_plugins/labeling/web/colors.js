// A colour for each class: ten that are easy to tell apart, then hues by the golden angle.

const FIRST = [
  [66, 115, 220], [242, 136, 33], [40, 160, 105], [222, 75, 82], [146, 100, 205],
  [20, 158, 170], [222, 110, 172], [160, 115, 60], [150, 160, 30], [110, 122, 140],
];

export function rgb(label) {
  if (label < FIRST.length) return FIRST[label];
  const hue = (label * 137.508) % 360, light = label % 2 ? 0.5 : 0.4;
  const part = n => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (light - 0.6 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

export const css = label => (label < 0 ? "var(--muted)" : `rgb(${rgb(label).join(" ")})`);
