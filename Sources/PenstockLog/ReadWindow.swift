// SPDX-License-Identifier: Apache-2.0
internal import PenstockSystem

/// Bytes of a segment that a reader has at hand, so that records that stand together are read
/// together.
///
/// Whoever reads has one of its own. It grows with records that follow each other, and is small for
/// those that do not. What is in it may have been read before it was written.
public struct ReadWindow: ~Copyable {
  private var segment: UInt32 = 0
  private var start = 0
  private var buffer = CommitBuffer(capacity: 0)

  static let most = 64 << 10

  /// One that has nothing yet.
  public init() {}

  /// How much to read at a place that is not in it.
  func size(at position: LogPosition) -> Int {
    let distance = Int(position.offset) - start
    let isNear = segment == position.segment && distance > 0 && distance <= 2 * buffer.count
    return isNear ? Self.most : LogFormat.sectorSize
  }

  /// Takes what `read` puts: bytes from a place on.
  mutating func load(
    _ position: LogPosition, _ read: (CommitBuffer) throws(LogError) -> Void
  ) throws(LogError) {
    // One large record must not keep its memory for ever.
    if buffer.capacity > 16 * Self.most { buffer = CommitBuffer(capacity: Self.most) }
    buffer.removeAll()
    (segment, start) = (position.segment, Int(position.offset))
    try read(buffer)
  }

  /// Bytes from a place on that are at hand.
  func count(at position: LogPosition) -> Int {
    guard segment == position.segment, Int(position.offset) >= start else { return 0 }
    return max(0, start + buffer.count - Int(position.offset))
  }

  /// The length of the record there as its header has it; 0 when that is not at hand.
  func recordLength(at position: LogPosition) -> Int {
    withBytes(position, min(count(at: position), LogFormat.recordHeaderSize)) {
      let payload = SegmentedLog.recordLength($0)
      return payload < 0 ? 0 : payload + LogFormat.recordHeaderSize
    }
  }

  /// The same; nil when it is not at hand as a whole, or fails its checksum.
  func intactRecord(at position: LogPosition) -> Int? {
    let length = recordLength(at: position)
    guard length > 0, length <= count(at: position) else { return nil }
    return withBytes(position, length) { SegmentedLog.isIntact($0) } ? length : nil
  }

  /// Lends the first `count` bytes from a place on, which must be at hand.
  func withBytes<Result, Failure: Error>(
    _ position: LogPosition, _ count: Int, _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let first = count == 0 ? 0 : Int(position.offset) - start
    return try buffer.withBytes(first..<first + count, body)
  }
}

/// The newest frames of the log: they were written past the page cache, and are read soon.
///
/// Large ones stay in the buffer that they were encoded into, small ones are copied together.
struct RecentFrames: ~Copyable, @unchecked Sendable {  // under a lock; what it keeps is its alone
  private struct Run {
    var segment: UInt32
    var start: Int
    var buffer: CommitBuffer
    var isCopied: Bool
  }
  /// Oldest first.
  private var runs: [Run] = []

  private let most: Int
  static let large = 64 << 10

  init(most: Int) { self.most = most }

  /// Bytes that they take.
  var memory: Int { runs.reduce(0) { $0 + $1.buffer.capacity } }

  /// Keeps a frame, the contents of a buffer.
  ///
  /// - Returns: a buffer to use instead of this one, whose contents do not matter.
  mutating func keep(_ buffer: CommitBuffer, segment: UInt32, at offset: Int) -> CommitBuffer {
    let size = buffer.count
    guard most >= 2 * Self.large, size <= most / 2 else { return buffer }
    if size >= Self.large, size * 4 >= buffer.capacity, buffer.capacity <= most {
      let spare = makeRoom(buffer.capacity)
      runs.append(Run(segment: segment, start: offset, buffer: buffer, isCopied: false))
      return spare ?? CommitBuffer(capacity: buffer.capacity)
    }
    if let last = runs.last, last.isCopied, last.segment == segment,
      last.start + last.buffer.count == offset, last.buffer.count + size <= last.buffer.capacity
    {
      buffer.withBytes { last.buffer.put($0) }
    } else {
      let wanted = max(size, 2 * Self.large)
      let spare = makeRoom(wanted)
      let fits = spare?.capacity == wanted ? spare : nil
      let target = fits ?? CommitBuffer(capacity: wanted)
      target.removeAll()
      buffer.withBytes { target.put($0) }
      runs.append(Run(segment: segment, start: offset, buffer: target, isCopied: true))
    }
    return buffer
  }

  /// Forgets the oldest until so many bytes fit; answers a buffer of them.
  private mutating func makeRoom(_ size: Int) -> CommitBuffer? {
    var spare: CommitBuffer?
    while memory + size > most, !runs.isEmpty { spare = runs.removeFirst().buffer }
    return spare
  }

  /// Which run has the byte at a place; nil when it is not kept.
  func run(at position: LogPosition) -> Int? {
    runs.lastIndex {
      $0.segment == position.segment
        && ($0.start..<$0.start + $0.buffer.count).contains(Int(position.offset))
    }
  }

  /// Puts up to `count` bytes from a place on; none when they are not kept.
  func read(_ position: LogPosition, _ count: Int, into buffer: CommitBuffer) {
    guard let index = run(at: position) else { return }
    let first = Int(position.offset) - runs[index].start
    runs[index].buffer.withBytes(first..<min(first + count, runs[index].buffer.count)) {
      buffer.put($0)
    }
  }
}
