// SPDX-License-Identifier: Apache-2.0
internal import PenstockLog
internal import PenstockSystem

/// A window over a file that may have sectors that cannot be read.
///
/// A read error ends no look: the sectors it concerns are read as bytes that no valid structure
/// has, and remembered, so that the look goes on behind them. Memory: one window, or one frame
/// where that is longer.
final class FileWindow {
  private let file: any File
  private(set) var size: Int
  private var window: [UInt8] = []
  private var start = 0
  /// Parts that could not be read, with the system's word for why.
  private(set) var unreadable: [(range: Range<Int>, reason: String)] = []

  static let windowSize = 1 << 20
  /// Stands for what cannot be read; anything but zero, which would look like an end.
  private static let unknown: UInt8 = 0xdb

  init(_ file: any File) throws(SystemError) {
    self.file = file
    size = Int(clamping: try file.size())
  }

  /// Forgets what was read, for a file that others write.
  func refresh() throws(ToolError) {
    window = []
    let file = file
    size = Int(clamping: try system { () throws(SystemError) in try file.size() })
  }

  func close() throws(ToolError) {
    let file = file
    try system { () throws(SystemError) in try file.close() }
  }

  /// Lends `body` up to `length` bytes at `offset`: fewer at the end of the file.
  func look<Result, Failure: Error>(
    _ offset: Int, _ length: Int, _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    load(offset, length)
    let from = min(max(offset - start, 0), window.count)
    let to = min(max(from, from + max(length, 0)), window.count)
    return try window.withRaw { (raw) throws(Failure) in try body(raw.extracting(from..<to)) }
  }

  private func load(_ offset: Int, _ length: Int) {
    let end = min(offset + length, size)
    if offset >= start, end <= start + window.count { return }
    let wanted = max(0, min(max(length, Self.windowSize), size - offset))
    start = offset
    do throws(SystemError) { window = try read(offset, wanted) } catch { loadSectors(wanted) }
  }

  private func read(_ offset: Int, _ length: Int) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: length)
    let file = file
    let count = try bytes.withMutableRaw { (raw) throws(SystemError) in
      try file.read(into: &raw, at: UInt64(offset))
    }
    bytes.removeLast(length - count)
    return bytes
  }

  /// Reads what can be read, one sector at a time.
  private func loadSectors(_ wanted: Int) {
    window = []
    while window.count < wanted {
      let offset = start + window.count
      let length = min(
        LogFormat.sectorSize - offset % LogFormat.sectorSize, wanted - window.count)
      do throws(SystemError) {
        let bytes = try read(offset, length)
        window += bytes
        if bytes.count < length { return }
      } catch {
        window += [UInt8](repeating: Self.unknown, count: length)
        note(offset..<offset + length, error.description)
      }
    }
  }

  private func note(_ range: Range<Int>, _ reason: String) {
    if unreadable.contains(where: { $0.range == range }) { return }
    // A dead disk must not fill the memory.
    if unreadable.count < 10_000 { unreadable.append((range, reason)) }
  }

  /// Why a part could not be read; nil when it could.
  func failure(in range: Range<Int>) -> String? {
    unreadable.first { $0.range.overlaps(range) }?.reason
  }

  func isZero(_ offset: Int, _ length: Int) -> Bool { look(offset, length) { $0.isZero } }

  /// The first frame header at or after `offset` that was written for that place, with this salt
  /// when it is known.
  func nextFrame(from offset: Int, salt: UInt64?) -> (header: FrameHeader, offset: Int)? {
    let unit = LogFormat.frameAlignment
    var offset = roundUp(max(offset, LogFormat.segmentHeaderSize), to: unit)
    while offset + LogFormat.frameHeaderSize <= size {
      let found: FrameHeader? = look(offset, LogFormat.frameHeaderSize) {
        FrameHeader($0, at: 0)
      }
      if let found, found.salt == salt ?? found.salt, Int(found.offset) == offset {
        return (found, offset)
      }
      offset += unit
    }
    return nil
  }

  /// CRC-32C of bytes that are in the file; nil when it ends before them.
  func checksum(_ offset: Int, _ length: Int) -> UInt32? {
    look(offset, length) { $0.byteCount == length ? CRC32C.of($0) : nil }
  }
}
