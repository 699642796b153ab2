// SPDX-License-Identifier: Apache-2.0
import Penstock
import PenstockSQS
import Testing

private func parse(_ text: String) throws -> JSONNode {
  try JSONParser.parse(Array(text.utf8)).root
}

@Suite struct ReadingJSON {
  @Test func membersAndElementsComeInOrder() throws {
    let node = try parse(#" {"a": [1, -2, 3.5e2], "b": {"c": null}, "d": true, "e": false} "#)
    #expect(node.members.map(\.key.string) == ["a", "b", "d", "e"])
    #expect(node.member("a")?.elements.map(\.integer) == [1, -2, nil])
    #expect(node.member("b")?.members.count == 1)
    #expect(node.member("b")?.member("c") == nil)
    #expect(node.member("d")?.kind == .yes)
    #expect(node.member("e")?.kind == .no)
    #expect(node.member("f") == nil)
  }

  @Test func lastOfEqualNamesCounts() throws {
    #expect(try parse(#"{"a":1,"\u0061":2}"#).member("a")?.integer == 2)
  }

  @Test(arguments: [
    (#""plain""#, "plain"), (#""""#, ""), (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
    (#""\u00fc\u20AC""#, "ü€"), (#""\ud83d\udc1d""#, "🐝"), (#""Grüße 🐝""#, "Grüße 🐝"),
    (#""\u0000""#, "\0"),
  ])
  func stringsAreDecoded(_ text: String, _ expected: String) throws {
    let node = try parse(text)
    #expect(node.string == expected)
    #expect(node.stringBytes == Array(expected.utf8))
  }

  @Test(arguments: [
    #""\ud800""#, #""\udc00x""#, #""\ud800\ud800""#, #""\ud83d\u0041""#, #""\ud83dA""#,
  ])
  func loneSurrogatesAreNoWireText(_ text: String) throws {
    let node = try parse(text)
    #expect(!Alphabet.isWireText(node.stringBytes))
    #expect(node.string.unicodeScalars.contains("\u{fffd}"))
  }

  @Test(
    arguments: [
      ("0", 0), ("-0", 0), ("9223372036854775807", Int.max), ("-9223372036854775808", Int.min),
      ("9223372036854775808", nil), ("1.0", nil), ("1e2", nil),
      ("99999999999999999999999999999999999999", nil),
    ] as [(String, Int?)])
  func integersAreWholeAndFit(_ text: String, _ expected: Int?) throws {
    #expect(try parse(text).integer == expected)
  }

  @Test(arguments: [
    "", " ", "{", "}", "[", "]", "{]", "[}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "[,]",
    "[1,]", "[1 2]", "{a:1}", "{'a':1}", "{\"a\":1 \"b\":2}", "{\"a\" 1}", "{1:2}", "nul",
    "nulL", "true1", "tru", "01", "-", "-a", "1.", ".5", "1e", "1e+", "+1", "0x10", "NaN",
    "Infinity", "\"", "\"a", "\"\\", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\u\"",
    "\"\n\"", "\"\u{0}\"", "{} {}", "{}x", "// c\n{}", "\u{feff}{}", "\u{0}", "{\"a\":1}\u{0}",
    "\"\\ud800\\u\"", "\"\\ud800\\u12\"",
  ])
  func brokenTextIsRefused(_ text: String) {
    #expect(throws: JSONError.self) { try parse(text) }
  }

  @Test(
    arguments: [
      [0x80], [0xc0, 0x80], [0xc1, 0xbf], [0xc3], [0xe0, 0x80, 0x80], [0xe2, 0x82],
      [0xed, 0xa0, 0x80], [0xf0, 0x80, 0x80, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xf5, 0x80],
      [0xff], [0xfe], [0xc3, 0x28],
    ] as [[UInt8]])
  func stringsThatAreNotUTF8AreRefused(_ bytes: [UInt8]) {
    #expect(throws: JSONError.self) { try JSONParser.parse([0x22] + bytes + [0x22]) }
    #expect(throws: JSONError.self) { try JSONParser.parse([0x22] + bytes) }
    #expect(throws: JSONError.self) { try JSONParser.parse(bytes) }
  }

  @Test func nestingIsLimited() throws {
    func nested(_ depth: Int) -> String {
      String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    }
    _ = try parse(nested(JSONParser.maximumDepth))
    #expect(throws: JSONError.self) { try parse(nested(JSONParser.maximumDepth + 1)) }
    #expect(throws: JSONError.self) { try parse(String(repeating: "[", count: 1 << 20)) }
    #expect(throws: JSONError.self) { try parse(String(repeating: "{\"a\":", count: 1 << 18)) }
  }

  @Test func numberOfValuesIsLimited() {
    let text = "[" + String(repeating: "0,", count: JSONParser.maximumTokens) + "0]"
    #expect(throws: JSONError.self) { try parse(text) }
  }

  /// Every prefix and every change of one byte of a good text ends in a value or an error.
  @Test func noMutilationTraps() throws {
    let text = Array(#"{"a":["x\ud83d\udc1dü",-1.5e+7,{"b":null}],"c":true,"d":"\\"}"#.utf8)
    for end in 0..<text.count {
      #expect(throws: JSONError.self) { try JSONParser.parse(Array(text[..<end])) }
    }
    for position in text.indices {
      for value in UInt8.min...UInt8.max {
        var changed = text
        changed[position] = value
        guard let document = try? JSONParser.parse(changed) else { continue }
        walk(document.root)
      }
    }
  }

  private func walk(_ node: JSONNode) {
    _ = (node.string, node.stringBytes, node.integer)
    for element in node.elements { walk(element) }
    for (key, value) in node.members {
      walk(key)
      walk(value)
    }
  }
}

@Suite struct WritingJSON {
  private func written(_ bytes: [UInt8]) -> String {
    var writer = JSONWriter()
    writer.string(bytes)
    return String(decoding: writer.bytes, as: UTF8.self)
  }

  @Test(arguments: [
    "", "plain", "\"\\\n\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f}", "Grüße 🐝", "\u{fffd}", "a/b",
  ])
  func stringsReadBackAsTheyWere(_ text: String) throws {
    #expect(try parse(written(Array(text.utf8))).string == text)
    var writer = JSONWriter()
    writer.string(text)
    #expect(try JSONParser.parse(writer.bytes).root.string == text)
  }

  @Test func bytesThatAreNotUTF8AreRepaired() throws {
    #expect(try parse(written([0x61, 0xff, 0x62])).string == "a\u{fffd}b")
  }
}

@Suite struct Base64Coding {
  @Test(arguments: [
    ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
    ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
  ])
  func vectorsOfTheRFC(_ plain: String, _ coded: String) {
    #expect(Base64.encode(Array(plain.utf8)) == coded)
    #expect(Base64.decode(Array(coded.utf8)) == Array(plain.utf8))
  }

  @Test func allBytesSurvive() {
    let bytes = Array(UInt8.min...UInt8.max)
    #expect(Base64.decode(Array(Base64.encode(bytes).utf8)) == bytes)
  }

  @Test(arguments: [
    "Z", "Zg", "Zg=", "=", "====", "Z===", "Zg==Zg==", "Zm9v\n", " Zm9v", "Zm-_", "Zh==", "Zm9=",
    "Zg=a", "ü===",
  ])
  func anythingElseIsRefused(_ text: String) {
    #expect(Base64.decode(Array(text.utf8)) == nil)
  }
}
