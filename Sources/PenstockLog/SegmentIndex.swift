// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

/// Where the waiting messages of one segment stand, by queue: what a store reads to take parked
/// messages into memory. It follows from the segment's records, so it can be made anew at any time.
///
/// **Layout** of the file: magic 0/8, version 8/4, ordinal 12/4, storeHigh 16/8, storeLow 24/8,
/// strips 32/4, blocks 36/4, checksum of all but the blocks' bytes 40/4, zero 44/4. Strips follow:
/// queue 0/4, blocks 4/4. Then the blocks, in the order of the strips: first LSN 0/8, last LSN 8/8,
/// count 16/4, bytes 20/4, checksum of the bytes 24/4, zero 28/4. Then the blocks' bytes: per entry
/// the differences to the one before it, as variable-length numbers: LSN, offset in eights, size in
/// eights (the size itself), second (zigzag); the first is counted from zeros.
///
/// A queue has one strip for messages that were sent here, one for each ascending row of copies.
public struct SegmentIndex: Sendable {
  /// Messages that ascend.
  private var strips: [(queue: UInt32, entries: [WaitingMessage])] = []
  /// The newest strips by queue: those of copies have odd keys.
  private var newest: [UInt64: Int] = [:]

  /// The key that was added to last: the next is mostly the same.
  private var last: (key: UInt64, place: Int) = (.max, 0)

  /// An index without messages.
  public init() {}

  /// Whether no message waits in the segment.
  public var isEmpty: Bool { strips.isEmpty }

  /// Adds what was parked, in the order of the segment.
  public mutating func append(_ entry: WaitingMessage, queue: UInt32, isCopy: Bool) {
    let key = UInt64(queue) << 1 | (isCopy ? 1 : 0)
    var place = last.key == key ? last.place : newest[key] ?? strips.count
    if place == strips.count || strips[place].entries.last?.message ?? 0 >= entry.message {
      place = strips.count
      newest[key] = place
      strips.append((queue, []))
    }
    strips[place].entries.append(entry)
    last = (key, place)
  }

  /// The queue's messages with LSNs from `first` to `last`, in order, at most `limit`.
  ///
  /// - Complexity: O(strips + limit + log entries).
  public func entries(
    queue: UInt32, from first: UInt64, through last: UInt64, limit: Int
  ) -> [WaitingMessage] {
    var found: [WaitingMessage] = []
    for strip in strips where strip.queue == queue {
      let start = strip.entries.firstPlace { $0.message < first }
      found += strip.entries[start...].prefix { $0.message <= last }.prefix(limit)
    }
    return SegmentIndexFile.first(limit, of: found)
  }

  // MARK: Writing

  static let blockCount = 256

  /// The whole file.
  package func encode(store: StoreID, ordinal: UInt32) -> CommitBuffer {
    let directory = CommitBuffer(capacity: 4096)
    let bytes = CommitBuffer(capacity: 1 << 16)
    let blockTable = CommitBuffer(capacity: 4096)
    let ordered = strips.enumerated().sorted {
      ($0.element.queue, $0.offset) < ($1.element.queue, $1.offset)
    }
    for (_, strip) in ordered {
      let count = (strip.entries.count + Self.blockCount - 1) / Self.blockCount
      directory.put(strip.queue)
      directory.put(UInt32(count))
      for start in stride(from: 0, to: strip.entries.count, by: Self.blockCount) {
        let entries = strip.entries[start..<min(start + Self.blockCount, strip.entries.count)]
        let begin = bytes.count
        Self.encode(entries, into: bytes)
        blockTable.put(entries.first?.message ?? 0)
        blockTable.put(entries.last?.message ?? 0)
        blockTable.put(UInt32(entries.count))
        blockTable.put(UInt32(bytes.count - begin))
        blockTable.put(bytes.withBytes(begin..<bytes.count) { CRC32C.of($0) })
        blockTable.put(UInt32(0))
      }
    }
    let file = CommitBuffer(
      capacity: SegmentIndexFile.headerSize + directory.count + blockTable.count + bytes.count)
    file.put(LogFormat.indexMagic)
    file.put(UInt32(LogFormat.version))
    file.put(ordinal)
    file.put(store.high)
    file.put(store.low)
    file.put(UInt32(ordered.count))
    file.put(UInt32(blockTable.count / 32))
    file.put(UInt32(0))
    file.put(UInt32(0))
    directory.withBytes { file.put($0) }
    blockTable.withBytes { file.put($0) }
    file.set(file.withBytes { CRC32C.of($0) }, at: 40)
    bytes.withBytes { file.put($0) }
    return file
  }

  private static func encode(_ entries: ArraySlice<WaitingMessage>, into buffer: CommitBuffer) {
    var last = WaitingMessage(message: 0, offset: 0, size: 0, sentSecond: 0)
    for entry in entries {
      buffer.putVariable(entry.message &- last.message)
      buffer.putVariable(UInt64(entry.offset / 8 &- last.offset / 8))
      buffer.putVariable(UInt64(entry.size / 8))
      let step = Int64(entry.sentSecond) - Int64(last.sentSecond)
      buffer.putVariable(UInt64(bitPattern: step << 1 ^ step >> 63))
      last = entry
    }
  }
}

/// An index file that is open for reading.
package final class SegmentIndexFile: Sendable {
  private struct Block: Sendable {
    var queue: UInt32
    var first: UInt64
    var last: UInt64
    var count: Int
    var offset: UInt64
    var bytes: Int
    var checksum: UInt32
  }

  private let file: any File
  private let blocks: [Block]

  static let headerSize = 48

  /// - Returns: nil when the file is damaged, or another segment's.
  package init?(_ file: any File, store: StoreID, ordinal: UInt32) throws(SystemError) {
    self.file = file
    let size = try file.size()
    guard size <= UInt64(LogFormat.maximumSegmentSize),
      let head = try file.bytes(Self.headerSize, at: 0)
    else { return nil }
    let (strips, count) = head.withRaw { (Int($0.u32(at: 32)), Int($0.u32(at: 36))) }
    let length = Self.headerSize + strips * 8 + count * 32
    guard length <= Int(size), let table = try file.bytes(length, at: 0) else { return nil }
    let found = table.withRaw { Self.blocks($0, store, ordinal, strips, count, Int(size)) }
    guard let found else { return nil }
    blocks = found
  }

  private static func blocks(
    _ span: borrowing RawSpan, _ store: StoreID, _ ordinal: UInt32, _ strips: Int, _ count: Int,
    _ size: Int
  ) -> [Block]? {
    var cursor = ByteCursor()
    do throws(BytesTooShort) {
      guard try cursor.u64(span) == LogFormat.indexMagic,
        LogFormat.isKnown(version: try cursor.u32(span)), try cursor.u32(span) == ordinal,
        try cursor.u64(span) == store.high, try cursor.u64(span) == store.low
      else { return nil }
      cursor.offset = 40
      let checksum = try cursor.u32(span)
      guard try cursor.u32(span) == 0 else { return nil }
      let zeros: [UInt8] = [0, 0, 0, 0]
      var actual = CRC32C.of(span.extracting(0..<40))
      actual = zeros.withRaw { CRC32C.of($0, seed: actual) }
      actual = CRC32C.of(span.extracting(44..<span.byteCount), seed: actual)
      guard actual == checksum else { return nil }
      var queues: [UInt32] = []
      for _ in 0..<strips {
        let queue = try cursor.u32(span)
        let length = Int(try cursor.u32(span))
        guard queues.count + length <= count else { return nil }
        queues += [UInt32](repeating: queue, count: length)
      }
      guard queues.count == count else { return nil }
      var blocks: [Block] = []
      blocks.reserveCapacity(count)
      var offset = span.byteCount
      for queue in queues {
        let block = Block(
          queue: queue, first: try cursor.u64(span), last: try cursor.u64(span),
          count: Int(try cursor.u32(span)), offset: UInt64(offset),
          bytes: Int(try cursor.u32(span)), checksum: try cursor.u32(span))
        guard try cursor.u32(span) == 0 else { return nil }
        offset += block.bytes
        guard offset <= size, block.count <= SegmentIndex.blockCount else { return nil }
        blocks.append(block)
      }
      return blocks
    } catch { return nil }
  }

  /// As `SegmentIndex.entries`; nil when a block is damaged.
  package func entries(
    queue: UInt32, from first: UInt64, through last: UInt64, limit: Int
  ) throws(SystemError) -> [WaitingMessage]? {
    var found: [WaitingMessage] = []
    var inStrip = 0
    var end: UInt64 = 0
    for block in blocks[blocks.firstPlace { $0.queue < queue }...] {
      guard block.queue == queue else { break }
      // A strip's blocks ascend; where one does not, the next strip has begun.
      if block.first <= end { inStrip = 0 }
      end = block.last
      guard block.last >= first, block.first <= last, inStrip < limit else { continue }
      guard let entries = try decode(block) else { return nil }
      let wanted = entries.filter { $0.message >= first && $0.message <= last }
      inStrip += wanted.count
      found += wanted
    }
    return Self.first(limit, of: found)
  }

  /// Each strip ascends, so what is missing behind a strip's `limit` is behind the result, too.
  fileprivate static func first(
    _ limit: Int, of entries: [WaitingMessage]
  ) -> [WaitingMessage] {
    let sorted = entries.sorted { $0.message < $1.message }
    return sorted.count > limit ? Array(sorted[..<limit]) : sorted
  }

  private func decode(_ block: Block) throws(SystemError) -> [WaitingMessage]? {
    guard let bytes = try file.bytes(block.bytes, at: block.offset) else { return nil }
    return bytes.withRaw { span in
      guard CRC32C.of(span) == block.checksum else { return nil }
      var entries: [WaitingMessage] = []
      entries.reserveCapacity(block.count)
      var cursor = ByteCursor()
      var last = WaitingMessage(message: 0, offset: 0, size: 0, sentSecond: 0)
      do throws(BytesTooShort) {
        for _ in 0..<block.count {
          last.message &+= try cursor.variable(span)
          last.offset &+= UInt32(truncatingIfNeeded: try cursor.variable(span)) &* 8
          last.size = UInt32(truncatingIfNeeded: try cursor.variable(span)) &* 8
          let step = try cursor.variable(span)
          let change = Int64(bitPattern: step >> 1) ^ -Int64(bitPattern: step & 1)
          last.sentSecond &+= UInt32(truncatingIfNeeded: change)
          entries.append(last)
        }
      } catch { return nil }
      return entries
    }
  }
}

extension CommitBuffer {
  /// Seven bits a byte, the low ones first; the high bit says that more follow.
  func putVariable(_ value: UInt64) {
    var rest = value
    while rest >= 128 {
      put(UInt8(truncatingIfNeeded: rest) | 128)
      rest >>= 7
    }
    put(UInt8(rest))
  }
}

extension ByteCursor {
  mutating func variable(_ span: borrowing RawSpan) throws(BytesTooShort) -> UInt64 {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while shift < 64 {
      let byte = try u8(span)
      value |= UInt64(byte & 127) << shift
      if byte < 128 { return value }
      shift += 7
    }
    throw BytesTooShort()
  }
}
