// SPDX-License-Identifier: Apache-2.0
internal import PenstockCore
internal import PenstockLog
internal import PenstockSystem

/// A checkpoint file as a tool finds it.
struct FoundCheckpoint {
  var name: String
  /// Nil when the file cannot be used.
  var header: CheckpointHeader?
  /// Why it cannot be used.
  var fault: String?
  var bytes: UInt64 = 0

  /// Reads a checkpoint whole, its state included; nil when the file is gone.
  ///
  /// - Complexity: memory follows the file's size, which its length fields cannot exceed.
  static func read(
    _ name: String, _ context: ToolContext, store: StoreID?
  ) throws(ToolError) -> (found: FoundCheckpoint, state: State?)? {
    let path = context.path(name)
    let size = try unlessMissing { () throws(SystemError) in
      try context.fileSystem.status(path)?.size
    }
    guard let bytes = size ?? nil else { return nil }
    var found = FoundCheckpoint(name: name, bytes: bytes)
    var version: UInt32?
    let read = try unlessMissing { () throws(SystemError) -> Checkpoint? in
      do throws(LogError) { return try Checkpoint.read(path, context.fileSystem) } catch {
        if case .system(let error) = error { throw error }
        if case .unsupportedVersion(_, let unknown) = error { version = unknown }
        return nil
      }
    }
    guard let checkpoint = read else { return nil }
    if let version {
      found.fault = "it is of format version \(version), which this build does not know"
      return (found, nil)
    }
    guard let checkpoint else {
      found.fault = "it fails its checksums, or cannot be read"
      return (found, nil)
    }
    guard store == nil || checkpoint.header.store == store else {
      found.fault = "it belongs to store \(checkpoint.header.store)"
      return (found, nil)
    }
    guard StoreFileName.checkpoint(checkpoint.header.lsn) == name else {
      found.fault = "it is of LSN \(checkpoint.header.lsn), and its name says otherwise"
      return (found, nil)
    }
    do throws(RecordError) {
      let state = try checkpoint.body.withRaw { (raw) throws(RecordError) in try State(raw) }
      found.header = checkpoint.header
      return (found, state)
    } catch {
      found.fault = error.description
      return (found, nil)
    }
  }
}
