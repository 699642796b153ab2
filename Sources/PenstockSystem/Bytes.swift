// SPDX-License-Identifier: Apache-2.0

/// A growable buffer whose memory starts on a 4 KiB boundary; what a commit is encoded into.
///
/// Numbers are little-endian. Not safe for use from two threads at once; handing it over is.
///
/// Invariants
/// - I1: `count <= capacity`, and the first `count` bytes were written by a `put` or `set`.
@safe public final class CommitBuffer {
  // Private, so that the compiler sees every access and none is checked at run time.
  private var base: UnsafeMutableRawPointer
  private var room: Int
  private var filled = 0

  /// Bytes that it holds before it grows.
  public var capacity: Int { room }
  /// Bytes that were put.
  public var count: Int { filled }

  /// What the address of its bytes is a multiple of.
  public static let alignment = 4096

  /// An empty buffer for so many bytes, one sector at least.
  public init(capacity: Int) {
    room = max(capacity, Self.alignment)
    // unsafe: freed in `deinit` or by `reserve`, which replaces it.
    unsafe base = .allocate(byteCount: room, alignment: Self.alignment)
  }

  deinit { unsafe base.deallocate() }

  /// Forgets the contents and keeps the memory.
  public func removeAll() { filled = 0 }

  /// Forgets the newest bytes.
  public func removeLast(_ length: Int) { filled = max(0, filled - length) }

  /// Makes room for `bytes` more.
  @inline(__always)
  public func reserve(_ bytes: Int) {
    if filled + bytes > room { grow(bytes) }
  }

  private func grow(_ bytes: Int) {
    let larger = max(filled + bytes, room * 2)
    // unsafe: both areas hold at least `filled` bytes.
    let copy = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: Self.alignment)
    unsafe copy.copyMemory(from: base, byteCount: filled)
    unsafe base.deallocate()
    unsafe base = copy
    room = larger
  }

  @inline(__always)
  private func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
    reserve(MemoryLayout<T>.size)
    // unsafe: `reserve` made the room.
    unsafe base.storeBytes(of: value.littleEndian, toByteOffset: filled, as: T.self)
    filled += MemoryLayout<T>.size
  }

  /// Appends a number; of several bytes the least first.
  public func put(_ value: UInt8) { store(value) }
  /// As above.
  public func put(_ value: UInt16) { store(value) }
  /// As above.
  public func put(_ value: UInt32) { store(value) }
  /// As above.
  public func put(_ value: UInt64) { store(value) }
  /// As above, in two's complement.
  public func put(_ value: Int64) { store(value) }

  /// Appends bytes.
  public func put(_ bytes: RawSpan) {
    let length = bytes.byteCount
    guard length > 0 else { return }
    reserve(length)
    // unsafe: `reserve` made the room; the source is another area.
    unsafe bytes.withUnsafeBytes {
      if let source = $0.baseAddress {
        unsafe (base + filled).copyMemory(from: source, byteCount: length)
      }
    }
    filled += length
  }

  /// Appends bytes.
  public func put(_ bytes: [UInt8]) { bytes.withRaw { put($0) } }

  /// Appends a text in UTF-8.
  public func put(_ text: String) {
    var text = text
    // unsafe: the span does not leave the closure.
    text.withUTF8 { unsafe put(RawSpan(_unsafeBytes: UnsafeRawBufferPointer($0))) }
  }

  /// Appends the bytes, `most` of them, that `read` puts and counts.
  public func fill<Failure: Error>(
    _ most: Int, _ read: (inout MutableRawSpan) throws(Failure) -> Int
  ) throws(Failure) {
    reserve(most)
    // unsafe: `reserve` made the room; the span does not leave this call.
    var rest = unsafe MutableRawSpan(_unsafeStart: base + filled, byteCount: most)
    filled += min(most, try read(&rest))
  }

  /// Appends so many zeros; none if that is negative.
  public func putZeros(_ length: Int) {
    guard length > 0 else { return }
    reserve(length)
    // unsafe: `reserve` made the room.
    unsafe (base + filled).initializeMemory(as: UInt8.self, repeating: 0, count: length)
    filled += length
  }

  /// Overwrites bytes that were put before.
  public func set(_ value: UInt32, at offset: Int) {
    precondition(offset >= 0 && offset + 4 <= filled)
    unsafe base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt32.self)
  }

  /// Writes over eight bytes that were put before, the least first.
  public func set(_ value: UInt64, at offset: Int) {
    precondition(offset >= 0 && offset + 8 <= filled)
    unsafe base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt64.self)
  }

  /// Lends `body` the bytes put so far, or those of a range of them.
  public func withBytes<Result, Failure: Error>(
    _ range: Range<Int>? = nil, _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let range = range ?? 0..<filled
    precondition(range.lowerBound >= 0 && range.upperBound <= filled)
    // unsafe: I1; the span does not leave this call.
    let span = unsafe RawSpan(
      _unsafeStart: UnsafeRawPointer(base) + range.lowerBound, byteCount: range.count)
    return try body(span)
  }
}

/// Bytes that end before a value that should be in them.
public struct BytesTooShort: Error, Sendable {
  /// An error without details: who reads knows where.
  public init() {}
}

/// Little-endian values read one after the other, each checked against the end.
public struct ByteCursor: Sendable {
  /// Of the next value, in bytes.
  public var offset: Int
  /// A cursor that begins there.
  public init(_ offset: Int = 0) { self.offset = offset }

  @inline(__always)
  private mutating func load<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type, _ span: borrowing RawSpan
  ) throws(BytesTooShort) -> T {
    guard offset >= 0, span.byteCount - offset >= MemoryLayout<T>.size else {
      throw BytesTooShort()
    }
    // unsafe: in bounds by the line above; every bit pattern is an integer.
    let value = unsafe span.unsafeLoadUnaligned(fromByteOffset: offset, as: T.self)
    offset += MemoryLayout<T>.size
    return T(littleEndian: value)
  }

  /// The next value of one byte.
  public mutating func u8(_ span: borrowing RawSpan) throws(BytesTooShort) -> UInt8 {
    try load(UInt8.self, span)
  }
  /// The next value of two bytes.
  public mutating func u16(_ span: borrowing RawSpan) throws(BytesTooShort) -> UInt16 {
    try load(UInt16.self, span)
  }
  /// The next value of four bytes.
  public mutating func u32(_ span: borrowing RawSpan) throws(BytesTooShort) -> UInt32 {
    try load(UInt32.self, span)
  }
  /// The next value of eight bytes.
  public mutating func u64(_ span: borrowing RawSpan) throws(BytesTooShort) -> UInt64 {
    try load(UInt64.self, span)
  }
  /// The next value of eight bytes, in two's complement.
  public mutating func i64(_ span: borrowing RawSpan) throws(BytesTooShort) -> Int64 {
    try load(Int64.self, span)
  }

  /// The next `length` bytes.
  public mutating func bytes(
    _ length: Int, _ span: borrowing RawSpan
  ) throws(BytesTooShort) -> [UInt8] {
    guard offset >= 0, length >= 0, span.byteCount - offset >= length else { throw BytesTooShort() }
    let start = offset
    offset += length
    return span.extracting(start..<start + length).array
  }
}

extension ByteCursor {
  /// Text in UTF-8; nothing else is taken for it.
  public mutating func text(
    _ length: Int, _ span: borrowing RawSpan
  ) throws(BytesTooShort) -> String {
    guard let text = String(validating: try bytes(length, span), as: UTF8.self) else {
      throw BytesTooShort()
    }
    return text
  }
}

extension RawSpan {
  /// A copy as an array.
  public var array: [UInt8] {
    // unsafe: the pointer is used during the call only.
    unsafe withUnsafeBytes { unsafe Array($0) }
  }

  /// Whether every byte is zero.
  public var isZero: Bool {
    unsafe withUnsafeBytes { bytes in
      var offset = 0
      while offset + 8 <= bytes.count {
        if unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) != 0 { return false }
        offset += 8
      }
      while offset < bytes.count {
        if unsafe bytes[offset] != 0 { return false }
        offset += 1
      }
      return true
    }
  }
}

/// Rounds up to a multiple of `unit`, a power of two.
@inline(__always)
public func roundUp(_ value: Int, to unit: Int) -> Int { (value + unit - 1) & ~(unit - 1) }

extension [UInt8] {
  /// Lends `body` the array's bytes.
  @inline(__always)
  public func withRaw<Result: ~Copyable, Failure: Error>(
    _ body: (RawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // unsafe: bytes have no padding, and the span does not leave this call.
    try body(unsafe span.bytes)
  }

  /// Lends `body` the array's bytes to overwrite.
  @inline(__always)
  public mutating func withMutableRaw<Result, Failure: Error>(
    _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    var elements = mutableSpan
    // unsafe: every bit pattern is a byte, and the span does not leave this call.
    var bytes = unsafe elements.mutableBytes
    return try body(&bytes)
  }
}
