// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

/// What every tool is given: a directory to look at, the file system it is on, and somebody who may
/// want to hear how far the tool has come.
///
/// Tools read the files by the documented format and take no lock, so they run beside a store that
/// is in use. Files may grow and vanish under them; a tool then looks at a fresh listing.
public struct ToolContext {
  public var directory: String
  public var fileSystem: any FileSystem
  public var clock: any SystemClock
  public var progress: (ToolProgress) -> Void

  public init(
    directory: String, fileSystem: any FileSystem, clock: any SystemClock,
    progress: @escaping (ToolProgress) -> Void = { _ in }
  ) {
    var directory = directory
    while directory.hasSuffix("/"), directory.utf8.count > 1 { directory.removeLast() }
    self.directory = directory
    self.fileSystem = fileSystem
    self.clock = clock
    self.progress = progress
  }

  func path(_ name: String) -> String { directory + "/" + name }

  func elsewhere(_ directory: String) -> ToolContext {
    ToolContext(
      directory: directory, fileSystem: fileSystem, clock: clock, progress: progress)
  }
}

/// How far a tool has come.
public struct ToolProgress: Sendable {
  public enum Unit: String, Sendable {
    case bytes
    case segments
  }
  public var task: String
  public var done: UInt64
  public var total: UInt64
  public var unit: Unit

  init(_ task: String, bytes done: UInt64, of total: UInt64) {
    (self.task, self.done, self.total, unit) = (task, done, total, .bytes)
  }

  init(_ task: String, segments done: Int, of total: Int) {
    (self.task, self.done, self.total) = (task, UInt64(clamping: done), UInt64(clamping: total))
    unit = .segments
  }
}

/// Why a tool could not do its work.
public struct ToolError: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Kind: String, Sendable {
    /// The tool could not look: no such directory, no permission, a disk that fails.
    case unreadable
    /// What is there is damaged, and the work needs it whole.
    case damaged
    /// A store in use removed files under the tool, again and again.
    case vanished
    /// Refused before anything was changed.
    case refused
  }
  public var kind: Kind
  /// What happened, and what to do.
  public var description: String

  public var json: JSON {
    .object([("error", .string(description)), ("kind", .string(kind.rawValue))])
  }

  public init(_ kind: Kind, _ description: String) {
    self.kind = kind
    self.description = description
  }
}

/// Runs a call to the file system for a tool.
func system<Result>(
  _ body: () throws(SystemError) -> Result
) throws(ToolError) -> Result {
  do throws(SystemError) { return try body() } catch {
    throw ToolError(.unreadable, error.description)
  }
}

/// The same, where absence is an answer.
func unlessMissing<Result>(
  _ body: () throws(SystemError) -> Result
) throws(ToolError) -> Result? {
  do throws(SystemError) { return try body() } catch {
    if error.isNotFound { return nil }
    throw ToolError(.unreadable, error.description)
  }
}
