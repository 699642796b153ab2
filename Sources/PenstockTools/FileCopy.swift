// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem

/// Files that appear whole: written under a name that every opening removes, synced, renamed, and
/// the directory synced.
struct FileCopy {
  let context: ToolContext
  private var partial: String {
    context.path("ffffffffffffffff" + StoreFileName.partialSuffix)
  }

  init(_ context: ToolContext) { self.context = context }

  /// Writes a file's whole contents under `name`, in place of what had it.
  func write(_ name: String, _ contents: CommitBuffer) throws(ToolError) {
    try make(name) { (target) throws(SystemError) in
      try contents.withBytes { (bytes) throws(SystemError) in try target.write(bytes, at: 0) }
    }
  }

  /// Copies `name` from `source`, or from the same directory, to `copy` here.
  ///
  /// - Parameter length: copies so many bytes of it; nil for all.
  /// - Returns: how many bytes were copied, and their CRC-32C; nil when there is no such file.
  @discardableResult
  func copy(
    _ name: String, to copy: String, from source: ToolContext? = nil, length: UInt64? = nil
  ) throws(ToolError) -> (size: UInt64, checksum: UInt32)? {
    let path = (source ?? context).path(name)
    let file = try unlessMissing { () throws(SystemError) in
      try context.fileSystem.open(path, .readOnly)
    }
    guard let file else { return nil }
    var checksum: UInt32 = 0
    var offset: UInt64 = 0
    try make(copy) { (target) throws(SystemError) in
      let end = min(length ?? .max, try file.size())
      while offset < end {
        let wanted = Int(min(UInt64(FileWindow.windowSize), end - offset))
        var bytes = [UInt8](repeating: 0, count: wanted)
        let count = try bytes.withMutableRaw { (raw) throws(SystemError) in
          try file.read(into: &raw, at: offset)
        }
        if count == 0 { break }
        bytes.removeLast(wanted - count)
        try bytes.withRaw { (raw) throws(SystemError) in
          checksum = CRC32C.of(raw, seed: checksum)
          try target.write(raw, at: offset)
        }
        offset += UInt64(count)
      }
      try file.close()
    }
    return (offset, checksum)
  }

  private func make(
    _ name: String, _ fill: (any File) throws(SystemError) -> Void
  ) throws(ToolError) {
    let (files, partial) = (context.fileSystem, partial)
    try system { () throws(SystemError) in
      if try files.status(partial) != nil { try files.remove(partial) }
      let target = try files.open(partial, .create)
      try fill(target)
      try target.sync()
      try target.close()
      try files.rename(partial, to: context.path(name))
      try files.syncDirectory(context.directory)
    }
  }
}
