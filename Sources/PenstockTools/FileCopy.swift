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
  /// - Parameter cut: copies a segment up to there and ends it with a seal, as a recovery does; nil
  ///   copies all of a file.
  /// - Parameter givenOut: the last LSN that this seal names, in the place of one that is there.
  /// - Returns: how many bytes were copied, and their CRC-32C; nil when there is no such file.
  @discardableResult
  func copy(
    _ name: String, to copy: String, from source: ToolContext? = nil, cut: Replay.Cut? = nil,
    givenOut: LSN? = nil
  ) throws(ToolError) -> (size: UInt64, checksum: UInt32)? {
    let path = (source ?? context).path(name)
    let file = try unlessMissing { () throws(SystemError) in
      try context.fileSystem.open(path, .readOnly)
    }
    guard let file else { return nil }
    var checksum: UInt32 = 0
    var offset: UInt64 = 0
    try make(copy) { (target) throws(SystemError) in
      let last = cut.map { givenOut == nil ? $0.offset : $0.contentOffset }
      let end = min(last.map { UInt64($0) } ?? .max, try file.size())
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
      guard let cut, !cut.isSealed || givenOut != nil else { return }
      try Self.seal(target, cut, givenOut ?? cut.lastLSN.advanced(by: LogFormat.lostLSNs))
    }
    return (offset, checksum)
  }

  /// Whoever continues the log from here gives out no LSN a second time.
  private static func seal(
    _ file: any File, _ cut: Replay.Cut, _ givenOut: LSN
  ) throws(SystemError) {
    _ = try SegmentedLog.writeSeal(
      file, at: cut.contentOffset, salt: cut.header.salt, lastLSN: cut.lastLSN,
      givenOut: givenOut, records: cut.records, previous: cut.contentChain,
      scratch: CommitBuffer(capacity: 2 * LogFormat.sectorSize))
  }

  /// Writes `HEAD` for a store whose newest segment has this header.
  func writeHead(_ header: SegmentHeader) throws(ToolError) {
    let buffer = CommitBuffer(capacity: HeadSlot.fileSize)
    HeadSlot(store: header.store, ordinal: header.ordinal).write(into: buffer)
    buffer.putZeros(HeadSlot.fileSize - buffer.count)
    try write(StoreFileName.head, buffer)
  }

  /// Size and CRC-32C of a file here; nil when there is none.
  func fingerprint(_ name: String) throws(ToolError) -> (size: UInt64, checksum: UInt32)? {
    let path = context.path(name)
    return try unlessMissing { () throws(SystemError) in
      let file = try context.fileSystem.open(path, .readOnly)
      var checksum: UInt32 = 0
      var offset: UInt64 = 0
      var bytes = [UInt8](repeating: 0, count: FileWindow.windowSize)
      while true {
        let count = try bytes.withMutableRaw { (raw) throws(SystemError) in
          try file.read(into: &raw, at: offset)
        }
        if count == 0 { break }
        checksum = bytes.withRaw { CRC32C.of($0.extracting(0..<count), seed: checksum) }
        offset += UInt64(count)
      }
      try file.close()
      return (offset, checksum)
    }
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
