// SPDX-License-Identifier: Apache-2.0
package import PenstockSystem

// The bytes on disk. `Docs/format.md` is the contract; a test compares its tables with the offsets
// here. Everything is little-endian.

/// Position of a record in the log. Grows by one per record and is never reused; starts at 1. After
/// a run that ended without a seal it goes on behind a gap.
public struct LSN: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// From 1 on.
  public var value: UInt64
  /// The LSN of this number.
  public init(_ value: UInt64) { self.value = value }
  public static func < (a: LSN, b: LSN) -> Bool { a.value < b.value }
  /// The LSN so many records later.
  public func advanced(by count: Int) -> LSN { LSN(value &+ UInt64(count)) }
  public var description: String { String(value) }
}

/// Where a record's header begins: a segment by its ordinal, and a byte offset in its file.
public struct LogPosition: Hashable, Sendable {
  /// The segment's ordinal.
  public var segment: UInt32
  /// In bytes from the beginning of its file.
  public var offset: UInt32
  /// A place in a segment.
  public init(segment: UInt32, offset: UInt32) {
    self.segment = segment
    self.offset = offset
  }
  /// Both halves in one word, segment first.
  public var packed: UInt64 { UInt64(segment) << 32 | UInt64(offset) }
  /// The reverse of `packed`.
  public init(packed: UInt64) {
    segment = UInt32(truncatingIfNeeded: packed >> 32)
    offset = UInt32(truncatingIfNeeded: packed)
  }
}

/// Sizes and versions of the format, in bytes. `Docs/format.md` has it whole.
public enum LogFormat {
  /// What is written. Older versions are read, too: see `Docs/format.md` for what differs.
  public static let version: UInt8 = 6
  static func isKnown(version: UInt32) -> Bool { (1...6).contains(version) }
  /// The unit that a device is assumed to tear: no write touches a sector that holds bytes an
  /// earlier sync made durable.
  public static let sectorSize = 4096
  /// Frames begin at multiples of this.
  public static let frameAlignment = 64
  /// Of the header before a frame's records.
  public static let frameHeaderSize = 64
  /// The segment header takes one sector.
  public static let segmentHeaderSize = 4096
  /// Of the length and checksum before a record.
  public static let recordHeaderSize = 8
  /// Records begin at multiples of this within a frame body.
  public static let recordAlignment = 8
  /// Kept free at the end of each segment for its seal, and for a heartbeat before that.
  public static let sealReserve = 2 * sectorSize
  /// The smallest segment that a store can have.
  public static let minimumSegmentSize = 64 * 1024
  /// The largest segment that a store can have.
  public static let maximumSegmentSize = 1 << 30
  /// LSNs that a recovery leaves out, so that none is given out twice: a run that ended without a
  /// seal may have given out some that no disk knows of, and leases carry them. Far more than fit
  /// between two syncs.
  public static let lostLSNs = 1 << 28
  /// Segments have lower ordinals; state keeps them in 28 bits.
  static let endOfOrdinals: UInt32 = 1 << 28
  /// Larger ones are damage. State keeps LSNs in 56 bits; that is 2^28 recoveries.
  static let maximumLSN = LSN(1 << 56)
  /// No segment begins here or behind: its own LSNs and those a recovery leaves out must fit.
  package static let endOfFirstLSNs = LSN(maximumLSN.value - 2 * UInt64(lostLSNs))

  /// Bytes that a record with this payload takes in a frame.
  @inline(__always)
  public static func recordSize(payload: Int) -> Int {
    roundUp(recordHeaderSize + payload, to: recordAlignment)
  }

  static let frameMagic: UInt32 = 0x4d52_4650  // "PFRM"
  static let segmentMagic: UInt64 = 0x4745_534b_4353_4e50  // "PNSCKSEG"
  static let storeMagic: UInt64 = 0x524f_5453_4b53_4e50  // "PNSKSTOR"
  static let checkpointMagic: UInt64 = 0x5450_4b43_4b53_4e50  // "PNSKCKPT"
  package static let indexMagic: UInt64 = 0x5844_4e49_4b53_4e50  // "PNSKINDX"
  static let headMagic: UInt64 = 0x4441_4548_4b53_4e50  // "PNSKHEAD"
}

/// The first 64 bytes of a frame.
///
/// **Layout** (offset, size): magic 0/4, version 4/1, kind 5/1, zero 6/2, salt 8/8, firstLSN 16/8,
/// count 24/4, bodyLength 28/4, extent 32/4, previous 36/4, durableLSN 40/8, offset 48/4, zero
/// 52/4, bodyChecksum 56/4, headerChecksum 60/4.
public struct FrameHeader: Hashable, Sendable {
  /// What a frame is for.
  public enum Kind: UInt8, Sendable {
    /// Carries records.
    case records = 1
    /// Carries nothing but a newer durable LSN.
    case heartbeat = 2
    /// Ends a segment.
    case seal = 3
  }

  /// What the frame is for.
  public var kind: Kind
  /// The random number of the segment that the frame was written for.
  public var salt: UInt64
  /// LSN of the first record; for a frame without records the next LSN to be given out.
  public var firstLSN: LSN
  /// Records in the frame.
  public var count: UInt32
  /// Bytes of records after the header.
  public var bodyLength: UInt32
  /// Bytes from this frame's start to the next one's: header, body and padding of zeros.
  public var extent: UInt32
  /// `headerChecksum` of the frame before, or of the segment header for a segment's first frame.
  public var previous: UInt32
  /// The highest LSN that was known to be durable when this frame was written.
  public var durableLSN: LSN
  /// Where the frame begins in its file.
  public var offset: UInt32
  /// CRC-32C of the bytes behind the header.
  public var bodyChecksum: UInt32
  /// CRC-32C of the 60 bytes before it; the frame's chain value.
  public var headerChecksum: UInt32 = 0

  static let bodyChecksumOffset = 56
  static let headerChecksumOffset = 60

  /// Overwrites the first 64 bytes of `buffer`, computes the checksum, and returns it.
  package func write(into buffer: CommitBuffer) -> UInt32 {
    buffer.set(LogFormat.frameMagic, at: 0)
    buffer.set(UInt32(LogFormat.version) | UInt32(kind.rawValue) << 8, at: 4)
    buffer.set(salt, at: 8)
    buffer.set(firstLSN.value, at: 16)
    buffer.set(count, at: 24)
    buffer.set(bodyLength, at: 28)
    buffer.set(extent, at: 32)
    buffer.set(previous, at: 36)
    buffer.set(durableLSN.value, at: 40)
    buffer.set(offset, at: 48)
    buffer.set(UInt32(0), at: 52)
    buffer.set(bodyChecksum, at: Self.bodyChecksumOffset)
    let checksum = buffer.withBytes(0..<Self.headerChecksumOffset) { CRC32C.of($0) }
    buffer.set(checksum, at: Self.headerChecksumOffset)
    return checksum
  }

  /// Reads a header whose magic, version, kind and checksum are right; nil otherwise. Says nothing
  /// about its place in the chain.
  package init?(_ span: borrowing RawSpan, at start: Int) {
    guard start >= 0, span.byteCount - start >= LogFormat.frameHeaderSize else { return nil }
    let header = span.extracting(start..<start + LogFormat.frameHeaderSize)
    var cursor = ByteCursor()
    do {
      guard try cursor.u32(header) == LogFormat.frameMagic else { return nil }
      guard LogFormat.isKnown(version: UInt32(try cursor.u8(header))),
        let kind = Kind(rawValue: try cursor.u8(header)), try cursor.u16(header) == 0
      else { return nil }
      self.kind = kind
      salt = try cursor.u64(header)
      firstLSN = LSN(try cursor.u64(header))
      count = try cursor.u32(header)
      bodyLength = try cursor.u32(header)
      extent = try cursor.u32(header)
      previous = try cursor.u32(header)
      durableLSN = LSN(try cursor.u64(header))
      offset = try cursor.u32(header)
      guard try cursor.u32(header) == 0 else { return nil }
      bodyChecksum = try cursor.u32(header)
      headerChecksum = try cursor.u32(header)
    } catch { return nil }
    guard CRC32C.of(header.extracting(0..<Self.headerChecksumOffset)) == headerChecksum else {
      return nil
    }
  }

  package init(
    kind: Kind, salt: UInt64, firstLSN: LSN, count: UInt32, bodyLength: UInt32, extent: UInt32,
    previous: UInt32, durableLSN: LSN, offset: UInt32, bodyChecksum: UInt32
  ) {
    self.kind = kind
    self.salt = salt
    self.firstLSN = firstLSN
    self.count = count
    self.bodyLength = bodyLength
    self.extent = extent
    self.previous = previous
    self.durableLSN = durableLSN
    self.offset = offset
    self.bodyChecksum = bodyChecksum
  }
}

/// The first sector of a segment file.
///
/// **Layout** (offset, size): magic 0/8, version 8/4, zero 12/4, storeHigh 16/8, storeLow 24/8,
/// salt 32/8, firstLSN 40/8, ordinal 48/4, previous 52/4, capacity 56/4, zero up to 4092,
/// checksum 4092/4.
public struct SegmentHeader: Hashable, Sendable {
  /// Of the format that it is written in.
  public var version = UInt32(LogFormat.version)
  /// The store that it belongs to.
  public var store: StoreID
  /// A random number that every frame of the segment carries.
  public var salt: UInt64
  /// LSN of its first record.
  public var firstLSN: LSN
  /// Counts segments from 0 without a gap.
  public var ordinal: UInt32
  /// `headerChecksum` of the seal of the segment before; 0 for the first segment.
  public var previous: UInt32
  /// The size up to which the segment may be written, in bytes.
  public var capacity: UInt32
  /// CRC-32C of the bytes before it.
  public var checksum: UInt32 = 0

  static let checksumOffset = LogFormat.segmentHeaderSize - 4

  /// A header for a new segment.
  public init(
    store: StoreID, salt: UInt64, firstLSN: LSN, ordinal: UInt32, previous: UInt32,
    capacity: UInt32
  ) {
    self.store = store
    self.salt = salt
    self.firstLSN = firstLSN
    self.ordinal = ordinal
    self.previous = previous
    self.capacity = capacity
  }

  /// Fills an empty `buffer` with the sector and returns the checksum, where the chain begins.
  package func write(into buffer: CommitBuffer) -> UInt32 {
    buffer.put(LogFormat.segmentMagic)
    buffer.put(UInt32(LogFormat.version))
    buffer.put(UInt32(0))
    buffer.put(store.high)
    buffer.put(store.low)
    buffer.put(salt)
    buffer.put(firstLSN.value)
    buffer.put(ordinal)
    buffer.put(previous)
    buffer.put(capacity)
    buffer.putZeros(LogFormat.segmentHeaderSize - buffer.count)
    let checksum = buffer.withBytes(0..<Self.checksumOffset) { CRC32C.of($0) }
    buffer.set(checksum, at: Self.checksumOffset)
    return checksum
  }

  /// Why a segment header cannot be used.
  package enum Failure: Error, Hashable {
    case damaged
    case version(UInt32)
  }

  package init(_ span: borrowing RawSpan) throws(Failure) {
    var cursor = ByteCursor()
    version = try cursor.begin(span, LogFormat.segmentMagic, size: LogFormat.segmentHeaderSize)
    checksum = span.u32(at: Self.checksumOffset)
    do throws(BytesTooShort) {
      guard try cursor.u32(span) == 0 else { throw BytesTooShort() }
      store = StoreID(high: try cursor.u64(span), low: try cursor.u64(span))
      salt = try cursor.u64(span)
      firstLSN = LSN(try cursor.u64(span))
      ordinal = try cursor.u32(span)
      previous = try cursor.u32(span)
      capacity = try cursor.u32(span)
      guard span.extracting(cursor.offset..<Self.checksumOffset).isZero else {
        throw BytesTooShort()
      }
    } catch { throw .damaged }
  }
}

extension ByteCursor {
  /// Reads what all headers but those of frames have: magic 0/8 and version 8/4, and in their last
  /// four bytes a checksum of those before.
  ///
  /// - Returns: the version. The cursor stands behind it.
  mutating func begin(
    _ span: borrowing RawSpan, _ magic: UInt64, size: Int
  ) throws(SegmentHeader.Failure) -> UInt32 {
    let version: UInt32
    do throws(BytesTooShort) {
      guard span.byteCount >= size, try u64(span) == magic,
        CRC32C.of(span.extracting(0..<size - 4)) == span.u32(at: size - 4)
      else { throw BytesTooShort() }
      version = try u32(span)
    } catch { throw .damaged }
    guard LogFormat.isKnown(version: version) else { throw .version(version) }
    return version
  }
}

/// Random identity of a store, in every segment, so that a foreign one is noticed.
public struct StoreID: Hashable, Sendable, CustomStringConvertible {
  /// The first eight bytes.
  public var high: UInt64
  /// The last eight bytes.
  public var low: UInt64
  /// An identity that was read or drawn.
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }
  public var description: String { Self.hex(high) + Self.hex(low) }
  static func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}

/// The file `STORE`: what makes a directory a store. Written once, by an atomic rename, after the
/// first segment is durable.
///
/// **Layout** (offset, size): magic 0/8, version 8/4, zero 12/4, storeHigh 16/8, storeLow 24/8,
/// keyHigh 32/8, keyLow 40/8, createdAt 48/8, zero 56/4, checksum 60/4.
public struct StoreFile: Hashable, Sendable {
  /// Of the format that the store was made with.
  public var version = UInt32(LogFormat.version)
  /// The store's identity.
  public var store: StoreID
  /// Authenticates receipt handles; random, kept for the life of the store.
  public var keyHigh: UInt64
  /// The key's other half.
  public var keyLow: UInt64
  /// Milliseconds since 1970.
  public var createdAt: Int64

  package static let size = 64

  package func write(into buffer: CommitBuffer) {
    buffer.put(LogFormat.storeMagic)
    buffer.put(UInt32(LogFormat.version))
    buffer.put(UInt32(0))
    buffer.put(store.high)
    buffer.put(store.low)
    buffer.put(keyHigh)
    buffer.put(keyLow)
    buffer.put(createdAt)
    buffer.put(UInt32(0))
    buffer.put(buffer.withBytes { CRC32C.of($0) })
  }

  package init(store: StoreID, keyHigh: UInt64, keyLow: UInt64, createdAt: Int64) {
    self.store = store
    self.keyHigh = keyHigh
    self.keyLow = keyLow
    self.createdAt = createdAt
  }

  package init(_ span: borrowing RawSpan) throws(SegmentHeader.Failure) {
    guard span.byteCount == Self.size else { throw .damaged }
    var cursor = ByteCursor()
    version = try cursor.begin(span, LogFormat.storeMagic, size: Self.size)
    do throws(BytesTooShort) {
      guard try cursor.u32(span) == 0 else { throw BytesTooShort() }
      store = StoreID(high: try cursor.u64(span), low: try cursor.u64(span))
      keyHigh = try cursor.u64(span)
      keyLow = try cursor.u64(span)
      createdAt = try cursor.i64(span)
      guard try cursor.u32(span) == 0 else { throw BytesTooShort() }
    } catch { throw .damaged }
  }
}

/// One of the two slots of the file `HEAD`, which says how many segments were begun, so that the
/// loss of the newest is noticed. Slots are written in turn, each in a sector of its own, in place:
/// the one that is not the newest, so that a torn write leaves the newest.
///
/// **Layout** (offset, size): magic 0/8, version 8/4, ordinal 12/4, storeHigh 16/8, storeLow 24/8,
/// zero 32/4, checksum 36/4.
public struct HeadSlot: Hashable, Sendable {
  /// The store that it belongs to.
  public var store: StoreID
  /// The ordinal of the newest segment whose name was durable.
  public var ordinal: UInt32

  package static let size = 40
  package static let fileSize = 2 * LogFormat.sectorSize

  /// Where slot 0 or 1 stands in the file.
  package static func offset(_ slot: Int) -> Int { slot * LogFormat.sectorSize }

  package init(store: StoreID, ordinal: UInt32) {
    self.store = store
    self.ordinal = ordinal
  }

  package func write(into buffer: CommitBuffer) {
    buffer.put(LogFormat.headMagic)
    buffer.put(UInt32(LogFormat.version))
    buffer.put(ordinal)
    buffer.put(store.high)
    buffer.put(store.low)
    buffer.put(UInt32(0))
    buffer.put(buffer.withBytes { CRC32C.of($0) })
  }

  /// Nil when the slot is damaged, or was never written.
  package init?(_ file: borrowing RawSpan, at offset: Int) {
    guard offset >= 0, file.byteCount - offset >= Self.size else { return nil }
    let span = file.extracting(offset..<offset + Self.size)
    var cursor = ByteCursor()
    do {
      _ = try cursor.begin(span, LogFormat.headMagic, size: Self.size)
      ordinal = try cursor.u32(span)
      store = StoreID(high: try cursor.u64(span), low: try cursor.u64(span))
      guard try cursor.u32(span) == 0 else { return nil }
    } catch { return nil }
  }
}

/// Names of files in a store's directory.
public enum StoreFileName {
  /// Held by the process that has the store open.
  public static let lock = "LOCK"
  /// Says what store it is.
  public static let store = "STORE"
  /// The same while a store is being made.
  public static let newStore = "STORE.new"
  /// Says how many segments were begun.
  public static let head = "HEAD"
  /// Behind the first LSN of a segment.
  public static let segmentSuffix = ".seg"
  /// A segment's worth of zeros, complete and synced.
  public static let preparedSuffix = ".next"
  /// The same, not complete.
  public static let partialSuffix = ".partial"
  /// Before the offset from which bytes were cut off a segment.
  public static let evidenceMark = ".torn-"
  /// Before the offset of a message that was set aside.
  public static let damagedMark = ".damaged-"
  /// Behind the LSN of a checkpoint.
  public static let checkpointSuffix = ".checkpoint"
  /// Behind the first LSN of the segment that it is of.
  public static let indexSuffix = ".index"
  /// Before the number of a copy that a repair keeps.
  public static let setAsideMark = ".set-aside-"
  /// Behind the name of a checkpoint that cannot be used.
  public static let damagedSuffix = ".damaged"

  /// Of the segment that begins with this LSN.
  public static func segment(_ first: LSN) -> String { StoreID.hex(first.value) + segmentSuffix }

  /// Of the checkpoint that reaches this LSN.
  public static func checkpoint(_ lsn: LSN) -> String {
    StoreID.hex(lsn.value) + checkpointSuffix
  }
  /// Of the index of the segment that begins with this LSN.
  public static func index(_ first: LSN) -> String { StoreID.hex(first.value) + indexSuffix }

  package enum Kind {
    case segment
    case checkpoint
    case index
    case prepared
    /// Half made; of no use after a crash.
    case partial
    /// The lock, the store file, `HEAD`, evidence, and what file systems put there.
    case other
    case unknown
  }

  /// What a name in a store's directory stands for. Names are matched whole, so that a stranger's
  /// file is never taken for a leftover.
  package static func kind(of name: String) -> Kind {
    if firstLSN(of: name) != nil { return .segment }
    if isNumbered(name, checkpointSuffix) { return .checkpoint }
    if isNumbered(name, indexSuffix) { return .index }
    if isNumbered(name, preparedSuffix) { return .prepared }
    if isNumbered(name, partialSuffix) || name == newStore { return .partial }
    if [lock, store, head, "lost+found"].contains(name) { return .other }
    if isNumbered(name, checkpointSuffix + damagedSuffix) { return .other }
    if isSetAside(name) { return .other }
    let segment = 16 + segmentSuffix.utf8.count
    let isEvidence =
      [evidenceMark, damagedMark].contains { name.dropFirst(segment).hasPrefix($0) }
      && firstLSN(of: String(name.prefix(segment))) != nil
    return isEvidence ? .other : .unknown
  }

  /// A name of the store's, the mark, and a number.
  private static func isSetAside(_ name: String) -> Bool {
    let number = name.utf8.reversed().prefix { (48...57).contains($0) }.count
    let rest = name.dropLast(number)
    guard (1...9).contains(number), rest.hasSuffix(setAsideMark) else { return false }
    let original = String(rest.dropLast(setAsideMark.count))
    return !original.contains(setAsideMark) && kind(of: original) != .unknown
  }

  /// Sixteen hex digits in lower case, then the suffix.
  private static func isNumbered(_ name: String, _ suffix: String) -> Bool {
    name.utf8.count == 16 + suffix.utf8.count && name.hasSuffix(suffix)
      && name.utf8.prefix(16).allSatisfy {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
          || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
      }
  }

  /// The first LSN in a segment's name, or nil when it is no such name.
  public static func firstLSN(of name: String) -> LSN? {
    isNumbered(name, segmentSuffix) ? UInt64(name.prefix(16), radix: 16).map { LSN($0) } : nil
  }
}
