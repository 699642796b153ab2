// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem

/// An index file as a tool finds it. Indexes follow from their segments, so nothing is lost with
/// one.
struct FoundIndex {
  var name: String
  var bytes: Int
  var ordinal: UInt32
  var store: StoreID
  /// Entries of waiting messages.
  var messages: UInt64 = 0
  /// Why the file cannot be used; nil when it can.
  var fault: String?

  private static let headerSize = 48
  private static let stripSize = 8
  private static let blockSize = 32

  /// - Returns: nil when the file is gone.
  static func read(
    _ name: String, _ context: ToolContext, store: StoreID?
  ) throws(ToolError) -> FoundIndex? {
    let window = try unlessMissing { () throws(SystemError) in
      try FileWindow(context.fileSystem.open(context.path(name), .readOnly))
    }
    guard let window else { return nil }
    var found = window.look(0, headerSize) { head in
      FoundIndex(
        name: name, bytes: window.size, ordinal: head.u32(at: 12),
        store: StoreID(high: head.u64(at: 16), low: head.u64(at: 24)))
    }
    found.fault = found.check(window)
    if found.fault == nil, let store, found.store != store {
      found.fault = "it belongs to store \(found.store)"
    }
    found.fault = window.failure(in: 0..<window.size) ?? found.fault
    try window.close()
    return found
  }

  /// By the layout: header, strips, blocks, then the blocks' bytes.
  private mutating func check(_ window: FileWindow) -> String? {
    let (strips, blocks) = window.look(0, Self.headerSize) { head in
      (Int(head.u32(at: 32)), Int(head.u32(at: 36)))
    }
    let table = Self.headerSize + strips * Self.stripSize + blocks * Self.blockSize
    guard window.size >= Self.headerSize, table <= window.size else { return "it is too short" }
    let isWhole = window.look(0, table) { raw in
      let zeros: [UInt8] = [0, 0, 0, 0]
      var checksum = CRC32C.of(raw.extracting(0..<40))
      checksum = zeros.withRaw { CRC32C.of($0, seed: checksum) }
      checksum = CRC32C.of(raw.extracting(44..<table), seed: checksum)
      return checksum == raw.u32(at: 40) && raw.u64(at: 0) == LogFormat.indexMagic
    }
    guard isWhole else { return "its header fails its checksum" }
    var offset = table
    for block in 0..<blocks {
      let place = Self.headerSize + strips * Self.stripSize + block * Self.blockSize
      let (count, length, checksum) = window.look(place, Self.blockSize) { raw in
        (raw.u32(at: 16), Int(raw.u32(at: 20)), raw.u32(at: 24))
      }
      guard window.checksum(offset, length) == checksum else {
        return "block \(block) fails its checksum"
      }
      messages += UInt64(count)
      offset += length
    }
    return offset == window.size ? nil : "it does not end with its last block"
  }
}

extension RawSpan {
  /// Little-endian; 0 where there are no eight bytes.
  fileprivate func u64(at offset: Int) -> UInt64 {
    UInt64(u32(at: offset)) | UInt64(u32(at: offset + 4)) << 32
  }
}
