// SPDX-License-Identifier: Apache-2.0
public import PenstockSystem

/// The open end of the log in memory: where records get their LSN and their place on disk.
///
/// Lives under the lock of its owner. Callers append to the open batch; the writer thread takes the
/// batches and writes each as one frame. While it syncs, the next batch fills. A record's place is
/// fixed when it is appended, so state can point at it before it is written.
///
/// Space is counted here too: a batch is only opened where a zero-filled segment lies ready, so
/// that a record that was admitted cannot meet a full disk. Sends leave a reserve that other
/// records may use, so that a full disk can be drained (L12).
///
/// Invariants
/// - I1: `durableLSN <= writtenLSN < nextLSN`.
/// - I2: the extents of all batches of a segment follow each other without a gap.
/// - I3: a batch that will be synced ends on a sector boundary.
public struct LogTail: @unchecked Sendable {  // its buffers have one owner at a time
  /// Whether records can be appended.
  public enum Room: Sendable {
    case ready
    /// No space right now, but a segment is being prepared or commits are being written.
    case wait
    /// No space, and the file system refuses more.
    case full
  }

  /// What room is asked for. Each leaves the others what they need on a full disk, so that it can
  /// be drained, and so that what was drained can be removed.
  public enum Purpose: Sendable {
    /// Takes space for good: leaves the whole reserve.
    case send
    /// Hands out a message: leaves what its delete needs.
    case lease
    /// Frees a message: leaves what the removal of segments needs.
    case delete
    /// Removes segments, or leads to that.
    case upkeep
  }

  /// LSN of the next record.
  public private(set) var nextLSN: LSN
  /// The highest LSN handed to the operating system; survives the process.
  public private(set) var writtenLSN: LSN
  /// The highest LSN known to survive power loss.
  public private(set) var durableLSN: LSN
  /// Records at this position or behind it are not written yet; as `LogPosition.packed`.
  private var writtenEnd: UInt64
  /// Zero-filled segments beyond the one that the open batch goes to.
  public private(set) var preparedAhead = 0
  /// The file system refused the next segment; cleared when one was prepared.
  public var isShortOfSpace = false

  private var segment: UInt32
  /// Where the open batch's frame begins, or the next one's.
  private var offset: Int
  private var open: Batch?
  private var closed: [Batch] = []
  private var spare: [CommitBuffer] = []
  /// Bytes appended and not yet written.
  private var pendingBytes = 0
  /// The durable LSN that the newest frame carries.
  private var witnessedLSN = LSN(0)

  /// A group was refused for lack of a segment.
  private var isSegmentWanted = false

  private let usable: Int
  private let plantedBug: PlantedBug?
  /// Bytes that sends must leave to what drains.
  package private(set) var reserve: Int
  /// Bytes that leases must leave to deletes.
  private var deleteReserve = 0
  /// Bytes that everything must leave to the records behind which segments are removed: those
  /// of two checkpoints and a removal, a sector each.
  private static let upkeepReserve = 3 * LogFormat.sectorSize

  static let batchTarget = 4 << 20
  static let pendingLimit = 16 << 20

  /// Continues after `lastLSN`; the first batch goes to the segment after `lastSegment`.
  package init(lastLSN: LSN, nextSegment: UInt32, segmentSize: Int, plantedBug: PlantedBug? = nil) {
    self.plantedBug = plantedBug
    nextLSN = lastLSN.advanced(by: 1)
    writtenLSN = lastLSN
    durableLSN = lastLSN
    segment = nextSegment &- 1
    writtenEnd = UInt64(nextSegment) << 32
    usable = segmentSize - LogFormat.sealReserve
    offset = usable
    reserve = segmentSize / 2
    witnessedLSN = lastLSN
  }

  /// Bytes that a message needs to be received and deleted alone: two frames, one of them synced.
  static let drainSize = deleteSize + 2 * LogFormat.frameAlignment
  /// The part of it that the delete needs.
  static let deleteSize = LogFormat.sectorSize + 2 * LogFormat.frameAlignment
  /// The reserve grows with the messages to be drained up to this many segments.
  public static let largestReserve = 8

  /// Sets how many messages the reserve must be able to drain.
  public mutating func keepReserve(messages: Int) {
    let (wanted, overflow) = messages.multipliedReportingOverflow(by: Self.drainSize)
    let most = Self.largestReserve * rollGain
    let drain = overflow ? most : min(wanted, most)
    reserve = max((usable + LogFormat.sealReserve) / 2, drain)
    // Never so much that little room, as after a restart on a full disk, would stop all receives.
    deleteReserve = min(drain / Self.drainSize * Self.deleteSize, rollGain / 4)
  }

  /// Whether a reserve for so many messages is more than the least one.
  public func wantsReserve(messages: Int) -> Bool {
    messages > (usable + LogFormat.sealReserve) / 2 / Self.drainSize
  }

  /// Whether another segment should be prepared: a send that uses half a segment would have to
  /// wait.
  public var needsSegment: Bool {
    isSegmentWanted
      || usable - offset - (open?.buffer.count ?? 0) + preparedAhead * rollGain
        < reserve + rollGain / 2
  }

  /// The most that one group of records may take, so that a send fits beside the reserve.
  public static func maximumGroupSize(segmentSize: Int) -> Int {
    segmentSize - LogFormat.sealReserve - segmentSize / 2
      - LogFormat.segmentHeaderSize - LogFormat.sectorSize - LogFormat.frameHeaderSize
  }

  /// Opens a batch that a group of records of `size` bytes fits in whole.
  ///
  /// - Complexity: O(1).
  public mutating func makeRoom(_ size: Int, for purpose: Purpose) -> Room {
    let needed =
      switch purpose {
      case .send: reserve
      case .lease: deleteReserve + Self.upkeepReserve
      case .delete: Self.upkeepReserve
      case .upkeep: 0
      }
    if purpose == .send, pendingBytes + size > Self.pendingLimit, pendingBytes > 0 { return .wait }
    let begun = open?.buffer.count ?? LogFormat.frameHeaderSize
    let joins = open.map { $0.count == 0 || $0.buffer.count + size <= Self.batchTarget } ?? true
    let end = roundUp(offset + begun + size, to: LogFormat.sectorSize)
    if joins, end <= usable {
      guard usable - end + preparedAhead * rollGain >= needed else { return refusal() }
      if open == nil { open = newBatch() }
      return .ready
    }
    // The group goes to a new batch: here behind the open one, or in the next segment.
    let nextOffset = open.map { offset + closedExtent(of: $0) } ?? offset
    let nextEnd = roundUp(nextOffset + LogFormat.frameHeaderSize + size, to: LogFormat.sectorSize)
    if nextEnd <= usable {
      guard usable - nextEnd + preparedAhead * rollGain >= needed else { return refusal() }
      closeOpenBatch()
      open = newBatch()
      return .ready
    }
    return roll(size, needed) ? .ready : refusal()
  }

  /// Whether a record can be appended that frees space later on: half the reserve stays for those
  /// who drain.
  public func canSpare(_ size: Int) -> Bool {
    usable - offset - (open?.buffer.count ?? 0) - size + preparedAhead * rollGain >= reserve / 2
  }

  private mutating func roll(_ size: Int, _ needed: Int) -> Bool {
    let end = roundUp(
      LogFormat.segmentHeaderSize + LogFormat.frameHeaderSize + size, to: LogFormat.sectorSize)
    guard preparedAhead > 0, end <= usable, usable - end + (preparedAhead - 1) * rollGain >= needed
    else { return false }
    closeOpenBatch()
    preparedAhead -= 1
    segment &+= 1
    offset = LogFormat.segmentHeaderSize
    open = newBatch()
    return true
  }

  private var rollGain: Int { usable - LogFormat.segmentHeaderSize }

  private mutating func refusal() -> Room {
    isSegmentWanted = true
    return isShortOfSpace ? .full : .wait
  }

  /// Appends one record to the open batch; `makeRoom` must have answered for its group.
  ///
  /// - Parameter synced: whether the batch must be synced; the record's answer then waits for that.
  /// - Parameter encode: puts exactly `payload` bytes.
  public mutating func append(
    payload: Int, synced: Bool, _ encode: (CommitBuffer) -> Void
  ) -> (lsn: LSN, position: LogPosition) {
    guard let batch = open.take() else { preconditionFailure("append without makeRoom") }
    let start = batch.append(payload, encode)
    if synced { batch.isSynced = true }
    pendingBytes += LogFormat.recordSize(payload: payload)
    let lsn = nextLSN
    nextLSN = lsn.advanced(by: 1)
    let position = LogPosition(
      segment: batch.segment, offset: UInt32(truncatingIfNeeded: batch.offset + start))
    open = batch
    if plantedBug == .splitsGroups {
      closeOpenBatch()
      open = newBatch()
    }
    return (lsn, position)
  }

  /// Asks that everything appended so far be synced with the open batch.
  public mutating func requireSync() { open?.isSynced = true }

  /// Whether the writer has something to do.
  public var hasBatches: Bool { !closed.isEmpty || (open.map { $0.count > 0 } ?? false) }

  /// Hands everything that was appended to the writer, in order.
  public mutating func takeBatches() -> [Batch] {
    if let batch = open, batch.count > 0 { closeOpenBatch() }
    let all = closed
    closed.removeAll(keepingCapacity: true)
    return all
  }

  /// Whether the newest durable LSN is in no frame yet, and the segment has room for one: the
  /// seal's reserve has one for it.
  public var needsHeartbeat: Bool {
    !hasBatches && durableLSN > witnessedLSN && writtenLSN == durableLSN
      && offset + LogFormat.frameHeaderSize <= usable + LogFormat.sectorSize
      && offset > LogFormat.segmentHeaderSize
  }

  /// A frame without records that carries the durable LSN, when no frame on disk does yet.
  ///
  /// The last commit before an idle time has no later frame as its witness, so damage to it would
  /// be taken for a torn tail (L8). This closes that gap for 64 bytes.
  public mutating func takeHeartbeat() -> Batch? {
    guard needsHeartbeat else { return nil }
    let batch = open ?? newBatch()
    open = nil
    batch.length = LogFormat.frameHeaderSize
    offset += LogFormat.frameHeaderSize
    return batch
  }

  /// Whether a record can be read from its file.
  public func isWritten(_ position: LogPosition) -> Bool { position.packed < writtenEnd }

  /// The writer has written `batch`; its buffer can be filled again.
  public mutating func wrote(_ batch: Batch) {
    if batch.count > 0 { writtenLSN = batch.lastLSN }
    writtenEnd = UInt64(batch.segment) << 32 | UInt64(batch.offset + batch.length)
    witnessedLSN = durableLSN
    pendingBytes -= batch.recordBytes
    let buffer = batch.spare ?? batch.buffer
    if spare.count < 3, buffer.capacity <= 2 * Self.batchTarget {
      buffer.removeAll()
      spare.append(buffer)
    }
  }

  /// Everything up to `lsn` survives power loss.
  public mutating func synced(upTo lsn: LSN) { durableLSN = max(durableLSN, lsn) }

  /// One more segment lies ready.
  public mutating func prepared() {
    preparedAhead += 1
    isSegmentWanted = false
    isShortOfSpace = false
  }

  /// Counts a prepared segment less, whose space is needed for something else; false when none is
  /// left over.
  public mutating func giveUpPrepared() -> Bool {
    guard preparedAhead > 1 else { return false }
    preparedAhead -= 1
    return true
  }

  private mutating func newBatch() -> Batch {
    let buffer = spare.popLast() ?? CommitBuffer(capacity: 128 << 10)
    buffer.putZeros(LogFormat.frameHeaderSize)
    return Batch(buffer: buffer, segment: segment, offset: offset, firstLSN: nextLSN)
  }

  private func closedExtent(of batch: Batch) -> Int {
    guard batch.count > 0 else { return 0 }
    return batch.extent
  }

  private mutating func closeOpenBatch() {
    guard let batch = open else { return }
    open = nil
    guard batch.count > 0 else {
      batch.buffer.removeAll()
      spare.append(batch.buffer)
      return
    }
    batch.recordBytes = batch.buffer.count - LogFormat.frameHeaderSize
    let extent = batch.extent
    batch.buffer.putZeros(extent - batch.buffer.count)
    batch.length = extent
    offset += extent
    closed.append(batch)
  }
}

/// Records that become one frame: all of them are there after a crash, or none.
///
/// Written to by `LogTail` under its owner's lock until it is taken, then by the writer thread
/// alone.
public final class Batch: @unchecked Sendable {  // handed from one owner to the next, never shared
  package let buffer: CommitBuffer
  /// What to fill next: its own buffer may be kept once it is written.
  var spare: CommitBuffer?
  package let segment: UInt32
  package let offset: Int
  package let firstLSN: LSN
  /// Records in it.
  public fileprivate(set) var count = 0
  /// Whether somebody waits for its sync.
  public fileprivate(set) var isSynced = false
  /// Bytes that it takes in its segment; set when it is closed.
  package fileprivate(set) var length = 0
  /// Bytes of records; set when the batch is closed.
  package fileprivate(set) var recordBytes = 0

  fileprivate init(buffer: CommitBuffer, segment: UInt32, offset: Int, firstLSN: LSN) {
    self.buffer = buffer
    self.segment = segment
    self.offset = offset
    self.firstLSN = firstLSN
  }

  /// Puts a record; answers where it begins.
  fileprivate func append(_ payload: Int, _ encode: (CommitBuffer) -> Void) -> Int {
    let start = buffer.count
    buffer.reserve(LogFormat.recordSize(payload: payload))
    buffer.put(UInt32(0))
    buffer.put(UInt32(truncatingIfNeeded: payload))
    encode(buffer)
    let end = start + LogFormat.recordHeaderSize + payload
    precondition(buffer.count == end, "a record's size differs from what was announced")
    buffer.set(buffer.withBytes(start + 4..<end) { CRC32C.of($0) }, at: start)
    buffer.putZeros(start + LogFormat.recordSize(payload: payload) - buffer.count)
    count += 1
    return start
  }

  /// LSN of its newest record.
  public var lastLSN: LSN { LSN(firstLSN.value + UInt64(count) - 1) }

  /// Bytes to the next frame: up to a sector's end if this one is synced, so that nothing written
  /// later touches a sector with acknowledged bytes.
  fileprivate var extent: Int {
    isSynced
      ? roundUp(offset + buffer.count, to: LogFormat.sectorSize) - offset
      : roundUp(buffer.count, to: LogFormat.frameAlignment)
  }
}
