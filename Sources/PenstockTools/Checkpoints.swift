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
    let checkpoint = try unlessMissing { () throws(SystemError) in
      try (Checkpoint.read(path, context.fileSystem), context.fileSystem.status(path)?.size ?? 0)
    }
    guard let (checkpoint, bytes) = checkpoint else { return nil }
    var found = FoundCheckpoint(name: name, bytes: bytes)
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

/// An index file: what is wrong with it. Indexes follow from their segments, so nothing is lost
/// with one.
enum IndexCheck {
  /// - Returns: nil when it is whole, or gone.
  static func fault(_ name: String, _ context: ToolContext) throws(ToolError) -> String? {
    let window = try unlessMissing { () throws(SystemError) in
      try FileWindow(context.fileSystem.open(context.path(name), .readOnly))
    }
    guard let window else { return nil }
    let fault = fault(window)
    try window.close()
    return window.failure(in: 0..<window.size) ?? fault
  }

  /// By the layout: header 48, strips of 8, blocks of 32, then the blocks' bytes.
  private static func fault(_ window: FileWindow) -> String? {
    let (strips, blocks) = window.look(0, 48) { head in
      (Int(head.u32(at: 32)), Int(head.u32(at: 36)))
    }
    let table = 48 + strips * 8 + blocks * 32
    guard window.size >= 48, table <= window.size else { return "it is too short" }
    let isWhole = window.look(0, table) { raw in
      let zeros: [UInt8] = [0, 0, 0, 0]
      var checksum = CRC32C.of(raw.extracting(0..<40))
      checksum = zeros.withRaw { CRC32C.of($0, seed: checksum) }
      checksum = CRC32C.of(raw.extracting(44..<table), seed: checksum)
      let magic = UInt64(raw.u32(at: 0)) | UInt64(raw.u32(at: 4)) << 32
      return checksum == raw.u32(at: 40) && magic == LogFormat.indexMagic
    }
    guard isWhole else { return "its header fails its checksum" }
    var offset = table
    for block in 0..<blocks {
      let (length, checksum) = window.look(48 + strips * 8 + block * 32, 32) { raw in
        (Int(raw.u32(at: 20)), raw.u32(at: 24))
      }
      guard window.checksum(offset, length) == checksum else {
        return "block \(block) fails its checksum"
      }
      offset += length
    }
    return offset == window.size ? nil : "it does not end with its last block"
  }
}
