/**
 * What somebody finds who looks at a file system: the living one, or what a
 * crash has left.
 *
 * @module
 */

import type { DiskImage, FoundNode } from "./crash.ts";
import type { Machine } from "./posix.ts";

/** A file system to look at. */
export interface View {
  /** The names in a directory. */
  names(id: string): string[];
  /** What a name in a directory stands for. */
  child(id: string, name: string): string | undefined;
  node(id: string): FoundNode;
}

/** The file system as its processes see it. */
export function liveView(machine: Machine): View {
  const inodeOf = (id: string) => {
    const inode = machine.inodes.get(id);
    if (inode === undefined) throw new Error(`No inode ${id}`);
    return inode;
  };
  return {
    names: (id) => [...inodeOf(id).entries.keys()],
    child: (id, name) => inodeOf(id).entries.get(name)?.id,
    node(id) {
      const { kind, text, bytes, mode, uid, gid } = inodeOf(id);
      return { kind, text, bytes, metadata: { mode, uid, gid } };
    },
  };
}

/** The file system as a crash has left it. */
export function crashView(image: DiskImage): View {
  return {
    names: (id) => [...image.entries.get(id)?.keys() ?? []],
    child: (id, name) => image.entries.get(id)?.get(name),
    node: (id) => image.node(id),
  };
}

/** What is at a path, through links; `undefined` if nothing. */
export function lookUp(view: View, path: string): FoundNode | undefined {
  const id = find(view, path);
  return id === undefined ? undefined : view.node(id);
}

/** All paths, but for those behind links. */
export function pathsIn(view: View): string[] {
  const paths: string[] = [];
  const visit = (id: string, path: string) => {
    for (const name of view.names(id)) {
      paths.push(`${path}/${name}`);
      visit(view.child(id, name) ?? "", `${path}/${name}`);
    }
  };
  visit("/", "");
  return paths;
}

function find(view: View, path: string): string | undefined {
  const rest = path.split("/").filter((name) => name !== "");
  const way = ["/"];
  for (let links = 0; rest.length > 0;) {
    const name = rest.shift() ?? "";
    if (name === ".") continue;
    if (name === "..") {
      way.pop();
      continue;
    }
    const id = view.child(way.at(-1) ?? "/", name);
    if (id === undefined) return undefined;
    const { kind, text } = view.node(id);
    if (kind !== "symlink") {
      way.push(id);
      continue;
    }
    if (++links > 40) return undefined;
    if (text.startsWith("/")) way.length = 1;
    rest.unshift(...text.split("/").filter((part) => part !== ""));
  }
  return way.at(-1);
}

/** The whole of it as one text, the same for the same tree. */
export function written(view: View): string {
  const parts: string[] = [];
  const seen = new Map<string, number>();
  const visit = (id: string, name: string) => {
    const before = seen.get(id);
    if (before !== undefined) {
      // Another name of the same file.
      parts.push(name, "=", `${before}`, ";");
      return;
    }
    seen.set(id, seen.size);
    const { kind, text, bytes, metadata: { mode, uid, gid } } = view.node(id);
    parts.push(name, kind, `${mode},${uid},${gid}`, text, bytes.join(), ";");
    for (const child of view.names(id).sort()) {
      visit(view.child(id, child) ?? "", `${name}/${child}`);
    }
  };
  visit("/", "");
  return parts.join(" ");
}
