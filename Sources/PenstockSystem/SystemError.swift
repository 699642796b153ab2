// SPDX-License-Identifier: Apache-2.0
internal import CPenstock

#if canImport(Glibc)
  internal import Glibc
#elseif canImport(Musl)
  internal import Musl
#else
  internal import Darwin
#endif

/// A system call that failed: which call, on what, and the errno.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The call, in the name of its manual page.
  public var call: String
  /// The file, as it was named to the call.
  public var path: String
  /// The error number of the call.
  public var errno: CInt

  /// A call that failed, for a file system that is injected.
  public init(call: String, path: String, errno: CInt) {
    self.call = call
    self.path = path
    self.errno = errno
  }

  /// No space left on the device, or the quota is used up.
  public var isOutOfSpace: Bool { errno == ENOSPC || errno == EDQUOT }
  /// Whether there is no such name.
  public var isNotFound: Bool { errno == ENOENT }
  /// Whether the name is taken.
  public var isAlreadyThere: Bool { errno == EEXIST }
  /// Whether the process may not do that.
  public var isNotPermitted: Bool { errno == EACCES || errno == EPERM }
  /// Another process, or another holder in this one, has the lock.
  public var isLocked: Bool { errno == EAGAIN || errno == EACCES }

  public var description: String {
    let text = unsafe strerror(errno).map { unsafe String(cString: $0) } ?? "errno \(errno)"
    return "\(call) of \(path) failed: \(text)"
  }
}
