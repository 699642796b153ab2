// SPDX-License-Identifier: Apache-2.0

/// A parsed JSON text, or a form in its place: the bytes as they came and one small token per
/// value.
///
/// Strings and numbers stay in `bytes` until somebody asks for them, so a body of a megabyte is
/// copied once, into the message.
package final class JSONDocument: Sendable {
  package enum Kind: UInt8, Sendable { case null, yes, no, number, string, array, object }

  /// One value. The children of a container follow it directly; a key comes before its value.
  struct Token: Sendable {
    var kind: Kind
    /// The string holds a backslash and must be decoded.
    var hasEscapes = false
    /// First byte of the value, without the quote.
    var start: Int32
    /// Byte after the value, without the quote.
    var end: Int32
    /// Index of the token after this value and all inside it.
    var next: Int32
  }

  let bytes: [UInt8]
  let tokens: [Token]
  /// Made of a form, in which numbers are texts.
  let isForm: Bool

  init(bytes: [UInt8], tokens: [Token], isForm: Bool = false) {
    (self.bytes, self.tokens, self.isForm) = (bytes, tokens, isForm)
  }

  /// The top-level value.
  package var root: JSONNode { JSONNode(document: self, index: 0) }

  /// True for a string with exactly these bytes.
  fileprivate func isString(_ index: Int, _ text: String) -> Bool {
    let token = tokens[index]
    guard token.kind == .string else { return false }
    if token.hasEscapes {
      return JSONNode(document: self, index: index).stringBytes.elementsEqual(text.utf8)
    }
    guard Int(token.end - token.start) == text.utf8.count else { return false }
    return bytes[Int(token.start)..<Int(token.end)].elementsEqual(text.utf8)
  }
}

/// Why bytes are not JSON, and where.
package struct JSONError: Error, Hashable {
  package var reason: String
  package var offset: Int
}

/// One value of a document.
package struct JSONNode: Sendable {
  let document: JSONDocument
  let index: Int

  private var token: JSONDocument.Token { document.tokens[index] }

  package var kind: JSONDocument.Kind { token.kind }

  /// The elements of an array; empty for anything else.
  package var elements: [JSONNode] {
    guard kind == .array else { return [] }
    var result: [JSONNode] = []
    var child = index + 1
    let end = Int(token.next)
    while child < end {
      result.append(JSONNode(document: document, index: child))
      child = Int(document.tokens[child].next)
    }
    return result
  }

  /// The members of an object in the order of the text; empty for anything else.
  package var members: [(key: JSONNode, value: JSONNode)] {
    guard kind == .object else { return [] }
    var result: [(key: JSONNode, value: JSONNode)] = []
    var child = index + 1
    let end = Int(token.next)
    while child + 1 < end {
      result.append(
        (JSONNode(document: document, index: child), JSONNode(document: document, index: child + 1))
      )
      child = Int(document.tokens[child + 1].next)
    }
    return result
  }

  /// The member of this name. A name that comes twice counts with its last value. A null is nil.
  package func member(_ name: String) -> JSONNode? {
    guard kind == .object else { return nil }
    var found: Int?
    var child = index + 1
    let end = Int(token.next)
    while child + 1 < end {
      if document.isString(child, name) { found = child + 1 }
      child = Int(document.tokens[child + 1].next)
    }
    guard let found, document.tokens[found].kind != .null else { return nil }
    return JSONNode(document: document, index: found)
  }

  /// True for a string with exactly these bytes.
  func isString(_ text: String) -> Bool { document.isString(index, text) }

  /// The string's bytes: UTF-8, except that a lone surrogate escape (`\ud800`) becomes its three
  /// bytes ED A0…BF 80…BF, which UTF-8 does not allow and `isWireText` refuses.
  package var stringBytes: [UInt8] {
    let token = self.token
    guard token.kind == .string else { return [] }
    let raw = document.bytes[Int(token.start)..<Int(token.end)]
    return token.hasEscapes ? Self.unescape(raw) : Array(raw)
  }

  /// The string; a lone surrogate reads as U+FFFD.
  package var string: String {
    let token = self.token
    guard token.kind == .string else { return "" }
    let raw = document.bytes[Int(token.start)..<Int(token.end)]
    return String(decoding: token.hasEscapes ? Self.unescape(raw)[...] : raw, as: UTF8.self)
  }

  /// The number if it is written as an integer and fits; nil for fractions, exponents, giants.
  package var integer: Int? {
    number.flatMap { Int($0) }
  }

  /// A number as it is written; nil for another kind.
  package var number: String? {
    let token = self.token
    guard token.kind == .number else { return nil }
    return String(decoding: document.bytes[Int(token.start)..<Int(token.end)], as: UTF8.self)
  }

  /// Replaces escapes. The parser has checked that each is whole.
  private static func unescape(_ raw: ArraySlice<UInt8>) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(raw.count)
    var position = raw.startIndex
    while position < raw.endIndex {
      let byte = raw[position]
      guard byte == UInt8(ascii: "\\"), position + 1 < raw.endIndex else {
        result.append(byte)
        position += 1
        continue
      }
      switch raw[position + 1] {
      case UInt8(ascii: "b"): result.append(0x08)
      case UInt8(ascii: "f"): result.append(0x0c)
      case UInt8(ascii: "n"): result.append(0x0a)
      case UInt8(ascii: "r"): result.append(0x0d)
      case UInt8(ascii: "t"): result.append(0x09)
      case UInt8(ascii: "u"):
        position = appendUnicodeEscape(raw, at: position, to: &result)
        continue
      case let other: result.append(other)
      }
      position += 2
    }
    return result
  }

  /// Decodes `\uXXXX`, or a pair of them that makes one character. Returns where to go on.
  private static func appendUnicodeEscape(
    _ raw: ArraySlice<UInt8>, at position: Int, to result: inout [UInt8]
  ) -> Int {
    guard let first = hexValue(raw, at: position + 2) else { return position + 2 }
    if first & 0xfc00 == 0xd800, position + 7 < raw.endIndex,
      raw[position + 6] == UInt8(ascii: "\\"), raw[position + 7] == UInt8(ascii: "u"),
      let second = hexValue(raw, at: position + 8), second & 0xfc00 == 0xdc00
    {
      appendCodePoint(0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff), to: &result)
      return position + 12
    }
    appendCodePoint(first, to: &result)
    return position + 6
  }

  private static func hexValue(_ raw: ArraySlice<UInt8>, at position: Int) -> UInt32? {
    guard position + 4 <= raw.endIndex else { return nil }
    var value: UInt32 = 0
    for byte in raw[position..<position + 4] {
      guard let digit = JSONParser.hexDigit(byte) else { return nil }
      value = value << 4 | UInt32(digit)
    }
    return value
  }

  private static func appendCodePoint(_ value: UInt32, to result: inout [UInt8]) {
    func tail(_ shift: UInt32) -> UInt8 {
      0x80 | UInt8(truncatingIfNeeded: (value >> shift) & 0x3f)
    }
    if value < 0x80 {
      result.append(UInt8(truncatingIfNeeded: value))
    } else if value < 0x800 {
      result.append(0xc0 | UInt8(truncatingIfNeeded: value >> 6))
      result.append(tail(0))
    } else if value < 0x10000 {
      result.append(0xe0 | UInt8(truncatingIfNeeded: value >> 12))
      result.append(tail(6))
      result.append(tail(0))
    } else {
      result.append(0xf0 | UInt8(truncatingIfNeeded: value >> 18))
      result.append(tail(12))
      result.append(tail(6))
      result.append(tail(0))
    }
  }
}
