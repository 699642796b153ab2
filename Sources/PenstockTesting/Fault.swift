// SPDX-License-Identifier: Apache-2.0

/// The calls of `FileSystem`, `File` and `FileLock`. Raw values appear in `SystemError.call`.
public enum CallKind: String, Sendable, CaseIterable {
  case open, rename, lock
  case list = "opendir"
  case status = "stat"
  case remove = "unlink"
  case createDirectory = "mkdir"
  case syncDirectory = "fsync directory"
  case read = "pread"
  case write = "pwrite"
  case syncData = "fdatasync"
  case sync = "fsync"
  case truncate = "ftruncate"
  case size = "fstat"
  case close
}

/// A call that reached the simulated file system.
public struct Call: Sendable, Hashable {
  /// Which call.
  public var kind: CallKind
  /// As given to the call; for an open file, as given to `open`; for a rename, the source.
  public var path: String
  /// In bytes; for `truncate` the new size, otherwise 0 where the call has none.
  public var offset: UInt64 = 0
  /// In bytes; 0 where the call has none.
  public var length = 0
  /// 0 when the call succeeded.
  public var errno: CInt = 0
}

/// A call that will fail.
public struct Fault: Sendable {
  /// What a failing call does before it reports the error.
  public enum Effect: Sendable, Hashable {
    /// It changes nothing.
    case nothing
    /// Of a write, the first so many bytes are written; other calls change nothing.
    case partial(bytes: Int)
    /// It succeeds in fact.
    case complete
    /// Of a sync, what was pending is marked clean: reads still see it, a later sync succeeds, and
    /// a power loss takes it. Other calls change nothing.
    case dropsPending
  }

  /// Which calls count and fail.
  public var kinds: Set<CallKind>
  /// How many of these calls succeed first, from the injection on.
  public var skipped: Int
  /// Whether every later call fails too, or only one.
  public var isPermanent: Bool
  /// The error that is reported.
  public var errno: CInt
  /// What happens all the same.
  public var effect: Effect

  /// The call after `skipped` calls of `kinds` fails with `errno`, and if `isPermanent` all later
  /// ones.
  public init(
    _ kinds: Set<CallKind> = Set(CallKind.allCases), after skipped: Int = 0,
    isPermanent: Bool = false, errno: CInt, effect: Effect = .nothing
  ) {
    self.kinds = kinds
    self.skipped = skipped
    self.isPermanent = isPermanent
    self.errno = errno
    self.effect = effect
  }
}
