// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// What one connection of a load says, and where an answer ends: the wire format, apart from the
/// loop that drives it.
///
/// First comes a greeting, if there is one; then rounds, each of one or more requests. The loop
/// measures a round from when it begins, or was due, until it has ended.
protocol LoadProtocol: AnyObject {
  /// Whether a connection that the server closes is made again, and the request said again.
  var reconnects: Bool { get }
  /// Whether the server closes the connection after the last answer that was read.
  var closes: Bool { get }
  /// Whether rounds begin when they are due; else each when the last has ended, in any case.
  var isPaced: Bool { get }
  /// Whether there is nothing more to do.
  var isDone: Bool { get }

  /// It is measured from now on: what begins after the warm-up, up to the end of the time.
  func measures(_ window: Range<UInt64>)

  /// The connection is made, or made again.
  /// - Returns: whether rounds can begin; else the greeting ends with `.ended`.
  func connected(_ output: inout LoadOutput) -> Bool

  /// Puts the first request of a round.
  func begin(_ output: inout LoadOutput)

  /// The same of a round that begins, or was due, at this time.
  func begin(at time: UInt64, _ output: inout LoadOutput)

  /// Takes a part of what has come, and puts what is to be said next, if that is known now.
  /// - Throws: `LoadError` when the answer is an error: that ends the run.
  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer
}

extension LoadProtocol {
  var reconnects: Bool { false }
  var closes: Bool { false }
  var isPaced: Bool { true }
  var isDone: Bool { false }
  func measures(_ window: Range<UInt64>) {}
  func begin(at time: UInt64, _ output: inout LoadOutput) { begin(&output) }
}

/// What `LoadProtocol.read` made of its input.
enum LoadAnswer: Equatable {
  /// It is not complete.
  case partial
  /// So many bytes are done with; the greeting or the round goes on.
  case taken(Int)
  /// So many bytes are done with; the greeting has ended, or a round that moved some messages.
  case ended(Int, messages: Int)
  /// So many bytes are done with; the round has ended and is not one to measure.
  case passed(Int)
}

/// Why a load ended early.
struct LoadError: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// What is to be written. A prepared request alone is taken without a copy.
struct LoadOutput {
  private(set) var bytes: [UInt8] = []
  var sent = 0

  mutating func put(_ request: [UInt8]) {
    if sent == bytes.count {
      bytes = request
      sent = 0
    } else {
      bytes += request
    }
  }

  mutating func put(_ request: String) { put(Array(request.utf8)) }
}

extension UnsafeRawBufferPointer {
  /// Where the first of these bytes is at or after a place.
  func place(of byte: UInt8, from start: Int = 0) -> Int? {
    guard let baseAddress, start < count else { return nil }
    guard let found = memchr(baseAddress + start, Int32(byte), count - start) else { return nil }
    return UnsafeRawPointer(found) - baseAddress
  }

  /// Where a text begins at or after a place.
  func place(of text: StaticString, from start: Int = 0) -> Int? {
    let first = text.utf8Start[0]
    var from = start
    while let found = place(of: first, from: from) {
      guard found + text.utf8CodeUnitCount <= count else { return nil }
      if has(text, at: found) { return found }
      from = found + 1
    }
    return nil
  }

  /// Whether a text is at a place.
  func has(_ text: StaticString, at place: Int = 0) -> Bool {
    guard let baseAddress, place + text.utf8CodeUnitCount <= count else { return false }
    return memcmp(baseAddress + place, text.utf8Start, text.utf8CodeUnitCount) == 0
  }

  /// Whether a text, given in lower case, is at a place in letters of either case.
  func hasAnyCase(_ text: StaticString, at place: Int) -> Bool {
    guard place + text.utf8CodeUnitCount <= count else { return false }
    for offset in 0..<text.utf8CodeUnitCount {
      let byte = self[place + offset]
      let lower = byte >= 65 && byte <= 90 ? byte | 0x20 : byte
      if lower != text.utf8Start[offset] { return false }
    }
    return true
  }

  /// The decimal number at a place, after spaces, and the place after it.
  func number(at place: Int) -> (value: Int, end: Int)? {
    var place = place
    while place < count, self[place] == 0x20 { place += 1 }
    let isNegative = place < count && self[place] == 0x2d
    if isNegative { place += 1 }
    let start = place
    var value = 0
    while place < count, (0x30...0x39).contains(self[place]) {
      guard value < 1 << 50 else { return nil }
      value = value * 10 + Int(self[place] - 0x30)
      place += 1
    }
    return place == start ? nil : (isNegative ? -value : value, place)
  }

  /// Where the first line ends, its CRLF not included, and where the next begins.
  func line(from start: Int = 0) -> (end: Int, next: Int)? {
    guard let end = place(of: 0x0a, from: start) else { return nil }
    return (end > start && self[end - 1] == 0x0d ? end - 1 : end, end + 1)
  }

  /// As text, for errors.
  func text(_ range: Range<Int>) -> String {
    String(decoding: UnsafeRawBufferPointer(rebasing: self[range]), as: UTF8.self)
  }

  /// A big-endian number.
  func big<T: FixedWidthInteger>(_ type: T.Type, at place: Int) -> T {
    T(bigEndian: loadUnaligned(fromByteOffset: place, as: T.self))
  }
}

extension [UInt8] {
  mutating func putBig<T: FixedWidthInteger>(_ value: T) {
    Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
  }
}
