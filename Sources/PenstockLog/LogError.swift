// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

/// Why a log could not be opened or read.
public enum LogError: Error, Sendable, CustomStringConvertible {
  /// Acknowledged data is damaged or missing, or cannot be what this store wrote.
  case corrupted(Damage)
  /// A system call failed. Says nothing about the data.
  case system(SystemError)
  /// Somebody else has the store open.
  case inUse(directory: String)
  /// The directory holds something, but no store.
  case notAStore(directory: String, reason: String)
  /// Written by another version of the format.
  case unsupportedVersion(file: String, version: UInt32)
  case invalidOption(String)

  /// Where damage was found.
  public struct Damage: Hashable, Sendable {
    /// Its name in the store's directory.
    public var file: String
    /// In bytes from the start of the file.
    public var offset: UInt64
    /// The first LSN that should be there; nil where none can be named.
    public var lsn: LSN?
    /// What is wrong there, in words.
    public var reason: String
    /// Damage at a place.
    public init(file: String, offset: UInt64, lsn: LSN?, reason: String) {
      self.file = file
      self.offset = offset
      self.lsn = lsn
      self.reason = reason
    }
  }

  /// Damage in a file, at its beginning or at a record in it.
  package static func damaged(
    _ file: String, at offset: UInt64 = 0, lsn: LSN? = nil, _ reason: String
  ) -> LogError { .corrupted(Damage(file: file, offset: offset, lsn: lsn, reason: reason)) }

  /// A segment that cannot be what its name says.
  static func refused(_ name: String, _ reason: String) -> LogError {
    .damaged(name, lsn: StoreFileName.firstLSN(of: name), reason)
  }

  public var description: String {
    switch self {
    case .corrupted(let damage):
      let lsn = damage.lsn.map { ", LSN \($0)" } ?? ""
      return "segment \(damage.file), offset \(damage.offset)\(lsn): \(damage.reason)"
    case .system(let error): return "\(error)"
    case .inUse(let directory):
      return "\(directory) is in use: another process, or another store in this one, holds its lock"
    case .notAStore(let directory, let reason): return "\(directory) is not a store: \(reason)"
    case .unsupportedVersion(let file, let version):
      return "\(file) has format version \(version); this build reads 1 to \(LogFormat.version)"
    case .invalidOption(let reason): return reason
    }
  }
}
