/**
 * Errors as a runtime throws them, and names of those that it only numbers: Deno
 * names those that it has a class for, Node those that libuv knows.
 *
 * @module
 */

/** As Linux numbers them, which is the same on all of its machines that the runtimes run on. */
const LINUX: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  4: "EINTR",
  5: "EIO",
  6: "ENXIO",
  9: "EBADF",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  16: "EBUSY",
  17: "EEXIST",
  18: "EXDEV",
  19: "ENODEV",
  20: "ENOTDIR",
  21: "EISDIR",
  22: "EINVAL",
  23: "ENFILE",
  24: "EMFILE",
  26: "ETXTBSY",
  27: "EFBIG",
  28: "ENOSPC",
  29: "ESPIPE",
  30: "EROFS",
  31: "EMLINK",
  32: "EPIPE",
  36: "ENAMETOOLONG",
  37: "ENOLCK",
  38: "ENOSYS",
  39: "ENOTEMPTY",
  40: "ELOOP",
  61: "ENODATA",
  74: "EBADMSG",
  75: "EOVERFLOW",
  84: "EILSEQ",
  95: "ENOTSUP",
  107: "ENOTCONN",
  110: "ETIMEDOUT",
  112: "EHOSTDOWN",
  113: "EHOSTUNREACH",
  116: "ESTALE",
  117: "EUCLEAN",
  121: "EREMOTEIO",
  122: "EDQUOT",
};

/** As macOS numbers those that differ. */
const DARWIN: Readonly<Record<number, string>> = {
  11: "EDEADLK",
  35: "EAGAIN",
  45: "ENOTSUP",
  60: "ETIMEDOUT",
  62: "ELOOP",
  63: "ENAMETOOLONG",
  64: "EHOSTDOWN",
  65: "EHOSTUNREACH",
  66: "ENOTEMPTY",
  69: "EDQUOT",
  70: "ESTALE",
  77: "ENOLCK",
  78: "ENOSYS",
  84: "EOVERFLOW",
  92: "EILSEQ",
  94: "EBADMSG",
  102: "ENOTSUP",
};

/** Above it the two number nothing alike. */
const COMMON = 34;

/** The name of an error by its number, where it is known. */
export function errnoName(
  platform: string,
  errno: number,
): string | undefined {
  if (platform === "linux") return LINUX[errno];
  if (platform !== "darwin") return undefined;
  return DARWIN[errno] ?? (errno <= COMMON ? LINUX[errno] : undefined);
}

/** Whether it is an error of any realm: code in a test runner's context has classes of its own, and the runtime does not use them. */
export function isError(value: unknown): value is Error {
  return typeof value === "object" && value !== null && "message" in value &&
    typeof value.message === "string";
}
