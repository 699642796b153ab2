// SPDX-License-Identifier: Apache-2.0

/// A strict JSON reader (RFC 8259) for bytes that anyone may have sent.
///
/// - Refuses: anything after the value, trailing commas, comments, unquoted names, control
///   characters in strings, bytes that are not UTF-8 (a byte order mark too), broken escapes,
///   leading zeros, nesting deeper than `maximumDepth`, more than `maximumTokens` values.
/// - Accepts lone surrogates written as escapes; `JSONNode.stringBytes` says what becomes of them.
/// - Complexity: one pass, no allocation but the token list.
package struct JSONParser {
  /// Requests of this protocol nest five deep.
  package static let maximumDepth = 32
  /// A full batch with all its attributes needs about a thousand. Bounds the memory of a parse.
  package static let maximumTokens = 20_000

  private let bytes: [UInt8]
  private var position = 0
  private var tokens: [JSONDocument.Token] = []

  private init(_ bytes: [UInt8]) {
    self.bytes = bytes
    tokens.reserveCapacity(16)
  }

  /// Parses all of `bytes`, which must be shorter than 2 GiB.
  package static func parse(_ bytes: [UInt8]) throws(JSONError) -> JSONDocument {
    guard bytes.count < Int(Int32.max) else {
      throw JSONError(reason: "text too long", offset: 0)
    }
    var parser = JSONParser(bytes)
    parser.skipBlanks()
    try parser.parseValue(depth: 0)
    parser.skipBlanks()
    guard parser.position == bytes.count else { throw parser.error("text after the value") }
    return JSONDocument(bytes: bytes, tokens: parser.tokens)
  }

  static func hexDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
  }

  private func error(_ reason: String) -> JSONError {
    JSONError(reason: reason, offset: position)
  }

  /// The byte at the position; zero, which no JSON text holds outside of errors, at the end.
  private var current: UInt8 { position < bytes.count ? bytes[position] : 0 }

  private mutating func skipBlanks() {
    while position < bytes.count {
      switch bytes[position] {
      case 0x20, 0x09, 0x0a, 0x0d: position += 1
      default: return
      }
    }
  }

  private mutating func append(_ kind: JSONDocument.Kind, from start: Int) throws(JSONError) {
    guard tokens.count < Self.maximumTokens else { throw error("too many values") }
    tokens.append(
      JSONDocument.Token(
        kind: kind, start: Int32(start), end: Int32(position), next: Int32(tokens.count + 1)))
  }

  private mutating func parseValue(depth: Int) throws(JSONError) {
    guard depth < Self.maximumDepth else { throw error("nested too deeply") }
    switch current {
    case UInt8(ascii: "{"): try parseObject(depth: depth)
    case UInt8(ascii: "["): try parseArray(depth: depth)
    case UInt8(ascii: "\""): try parseString()
    case UInt8(ascii: "t"): try parseWord("true", .yes)
    case UInt8(ascii: "f"): try parseWord("false", .no)
    case UInt8(ascii: "n"): try parseWord("null", .null)
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): try parseNumber()
    default: throw error(position < bytes.count ? "unexpected character" : "unexpected end")
    }
  }

  private mutating func parseObject(depth: Int) throws(JSONError) {
    let index = tokens.count
    try append(.object, from: position)
    position += 1
    skipBlanks()
    if current == UInt8(ascii: "}") { return close(index) }
    while true {
      guard current == UInt8(ascii: "\"") else { throw error("a member name was expected") }
      try parseString()
      skipBlanks()
      guard current == UInt8(ascii: ":") else { throw error("a colon was expected") }
      position += 1
      skipBlanks()
      try parseValue(depth: depth + 1)
      skipBlanks()
      if current == UInt8(ascii: "}") { return close(index) }
      guard current == UInt8(ascii: ",") else { throw error("a comma was expected") }
      position += 1
      skipBlanks()
    }
  }

  private mutating func parseArray(depth: Int) throws(JSONError) {
    let index = tokens.count
    try append(.array, from: position)
    position += 1
    skipBlanks()
    if current == UInt8(ascii: "]") { return close(index) }
    while true {
      try parseValue(depth: depth + 1)
      skipBlanks()
      if current == UInt8(ascii: "]") { return close(index) }
      guard current == UInt8(ascii: ",") else { throw error("a comma was expected") }
      position += 1
      skipBlanks()
    }
  }

  private mutating func close(_ index: Int) {
    position += 1
    tokens[index].end = Int32(position)
    tokens[index].next = Int32(tokens.count)
  }

  private mutating func parseWord(
    _ word: StaticString, _ kind: JSONDocument.Kind
  ) throws(JSONError) {
    let start = position
    let count = word.utf8CodeUnitCount
    let matches = word.withUTF8Buffer { word in
      bytes.count - start >= count && bytes[start..<start + count].elementsEqual(word)
    }
    guard matches else { throw error("unexpected character") }
    position += count
    try append(kind, from: start)
  }

  private mutating func skipDigits() -> Int {
    let start = position
    while position < bytes.count, bytes[position] &- UInt8(ascii: "0") < 10 { position += 1 }
    return position - start
  }

  private mutating func parseNumber() throws(JSONError) {
    let start = position
    if current == UInt8(ascii: "-") { position += 1 }
    if current == UInt8(ascii: "0") {
      position += 1
    } else if skipDigits() == 0 {
      throw error("a digit was expected")
    }
    if current == UInt8(ascii: ".") {
      position += 1
      guard skipDigits() > 0 else { throw error("a digit was expected") }
    }
    if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
      position += 1
      if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
      guard skipDigits() > 0 else { throw error("a digit was expected") }
    }
    try append(.number, from: start)
  }

  private mutating func parseString() throws(JSONError) {
    position += 1
    let start = position
    var hasEscapes = false
    position = bytes.withUnsafeBytes { PlainText.end(of: $0, from: start, isQuoted: true) }
    while true {
      guard position < bytes.count else { throw error("a string without an end") }
      let byte = bytes[position]
      switch byte {
      case UInt8(ascii: "\""):
        try append(.string, from: start)
        tokens[tokens.count - 1].hasEscapes = hasEscapes
        position += 1
        return
      case UInt8(ascii: "\\"):
        hasEscapes = true
        try skipEscape()
      case 0x20..<0x80: position += 1
      case 0..<0x20: throw error("a control character in a string")
      default:
        guard let length = UTF8Check.length(bytes, at: position) else {
          throw error("bytes that are not UTF-8")
        }
        position += length
      }
    }
  }

  private mutating func skipEscape() throws(JSONError) {
    guard position + 1 < bytes.count else { throw error("a string without an end") }
    switch bytes[position + 1] {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"),
      UInt8(ascii: "f"), UInt8(ascii: "n"), UInt8(ascii: "r"), UInt8(ascii: "t"):
      position += 2
    case UInt8(ascii: "u"):
      guard position + 6 <= bytes.count,
        bytes[position + 2..<position + 6].allSatisfy({ Self.hexDigit($0) != nil })
      else { throw error("a broken escape") }
      position += 6
    default: throw error("a broken escape")
    }
  }
}

/// Runs of printable ASCII, eight bytes at a time: what most text is.
enum PlainText {
  /// Where a run ends that begins at `start`: less than eight bytes behind it comes a byte that is
  /// none of it, or the end.
  ///
  /// - Parameter isQuoted: whether a quote or a backslash ends it too.
  static func end(of bytes: UnsafeRawBufferPointer, from start: Int, isQuoted: Bool) -> Int {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let tops = ones << 7
    /// Not zero if any byte is less than `limit`, which is 128 at most.
    func anyBelow(_ limit: UInt64, _ word: UInt64) -> UInt64 {
      (word &- ones &* limit) & ~word & tops
    }
    var position = start
    while position + 8 <= bytes.count {
      let word = bytes.loadUnaligned(fromByteOffset: position, as: UInt64.self)
      var others = word & tops | anyBelow(0x20, word)
      if isQuoted {
        others |= anyBelow(1, word ^ ones &* 0x22) | anyBelow(1, word ^ ones &* 0x5c)
      }
      guard others == 0 else { break }
      position += 8
    }
    return position
  }
}

/// Well-formedness of UTF-8, table 3-7 of the Unicode standard.
enum UTF8Check {
  /// Length of the character that begins at `position`; nil if none does.
  static func length(_ bytes: [UInt8], at position: Int) -> Int? {
    func tail(_ offset: Int, _ range: ClosedRange<UInt8> = 0x80...0xbf) -> Bool {
      position + offset < bytes.count && range.contains(bytes[position + offset])
    }
    switch bytes[position] {
    case 0..<0x80: return 1
    case 0xc2...0xdf: return tail(1) ? 2 : nil
    case 0xe0: return tail(1, 0xa0...0xbf) && tail(2) ? 3 : nil
    case 0xed: return tail(1, 0x80...0x9f) && tail(2) ? 3 : nil
    case 0xe1...0xef: return tail(1) && tail(2) ? 3 : nil
    case 0xf0: return tail(1, 0x90...0xbf) && tail(2) && tail(3) ? 4 : nil
    case 0xf1...0xf3: return tail(1) && tail(2) && tail(3) ? 4 : nil
    case 0xf4: return tail(1, 0x80...0x8f) && tail(2) && tail(3) ? 4 : nil
    default: return nil
    }
  }
}
