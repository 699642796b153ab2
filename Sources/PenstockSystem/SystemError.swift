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
  public var path: String
  public var errno: CInt

  public init(call: String, path: String, errno: CInt) {
    self.call = call
    self.path = path
    self.errno = errno
  }

  /// No space left on the device, or the quota is used up.
  public var isOutOfSpace: Bool { errno == ENOSPC || errno == EDQUOT }
  public var isNotFound: Bool { errno == ENOENT }
  public var isAlreadyThere: Bool { errno == EEXIST }
  public var isNotPermitted: Bool { errno == EACCES || errno == EPERM }
  /// Another process, or another holder in this one, has the lock.
  public var isLocked: Bool { errno == EAGAIN || errno == EACCES }

  public var description: String {
    let text = unsafe strerror(errno).map { unsafe String(cString: $0) } ?? "errno \(errno)"
    return "\(call) of \(path) failed: \(text)"
  }
}
