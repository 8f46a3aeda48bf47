/**
 * The mounts of this process, as `/proc/self/mountinfo` lists them.
 *
 * @module
 */

/** One mount. */
export interface Mount {
  readonly id: string;
  readonly parent: string;
  /** The numbers of its device, as in `"8:1"`. */
  readonly device: string;
  /** Where it is mounted. */
  readonly point: string;
  readonly type: string;
  /** Those of the mount, and those of its file system. */
  readonly options: readonly string[];
}

/** Reads the list. What is no line of it is left out. */
export function parseMounts(list: string): Mount[] {
  return list.split("\n").flatMap((line) => {
    // The source may be a "-" too.
    const end = line.indexOf(" - ");
    const place = line.slice(0, Math.max(0, end));
    const filesystem = line.slice(end + " - ".length);
    const [id = "", parent = "", device = "", , point = "", own = ""] = place
      .split(" ");
    const [type = "", , shared = ""] = filesystem.split(" ");
    if (point === "" || type === "") return [];
    const options = [own, shared].flatMap((list) => list.split(","));
    return [{
      id,
      parent,
      device,
      point: unescaped(point),
      type: unescaped(type),
      options: options.map(unescaped),
    }];
  });
}

/** A space, a tab, a newline, a backslash, and of options a comma, are written in octal. */
function unescaped(text: string): string {
  return text.replaceAll(
    /\\([0-7]{3})/g,
    (_, octal) => String.fromCharCode(parseInt(octal, 8)),
  );
}

/**
 * The mount that a real path is on. One that is mounted over hides those below
 * it, so the way leads from each mount to the first on the path that is mounted
 * on it; the longest match alone would find what is hidden.
 */
export function mountOf(
  mounts: readonly Mount[],
  path: string,
): Mount | undefined {
  const ids = new Set(mounts.map(({ id }) => id));
  // Of a root directory that is no mount, or not this process's.
  let reached = mounts.filter(({ id, parent }) =>
    id === parent || !ids.has(parent)
  );
  let found: Mount | undefined;
  for (let rest = mounts.length; rest >= 0; rest--) {
    const next = first(reached, path);
    if (next === undefined) break;
    found = next;
    reached = mounts.filter(({ id, parent }) =>
      parent === next.id && id !== next.id
    );
  }
  return found;
}

/** The outermost of those on the way to a path; of several in one place the last. */
function first(mounts: readonly Mount[], path: string): Mount | undefined {
  return mounts
    .filter(({ point }) => isWithin(path, point))
    .reduce<Mount | undefined>(
      (best, mount) =>
        best === undefined || mount.point.length <= best.point.length
          ? mount
          : best,
      undefined,
    );
}

function isWithin(path: string, directory: string): boolean {
  return path === directory || directory === "/" ||
    path.startsWith(`${directory}/`);
}

/** The value of an option, as an overlay writes paths. */
export function optionValue(
  { options }: Mount,
  name: string,
): string | undefined {
  const option = options.find((option) => option.startsWith(`${name}=`));
  // It escapes once more what would end a path.
  return option?.slice(name.length + 1).replaceAll(/\\(.)/g, "$1");
}
