import ImageCodec
import Testing

/// Canvases of images that are made larger, and masks.
@Suite struct OutpaintingTests {
  @Test func theCanvasRepeatsTheEdgesAndTheMaskFallsInside() {
    let image = RasterImage(width: 3, height: 2, channels: 1, pixels: [10, 20, 30, 40, 50, 60])
    let (canvas, mask) = Outpainting(left: 2, top: 0, right: 0, bottom: 1, feather: 1).canvas(of: image)
    #expect(canvas.width == 5 && canvas.height == 3 && mask.width == 5 && mask.height == 3 && mask.channels == 1)
    #expect(canvas.pixels == [10, 10, 10, 20, 30, 40, 40, 40, 50, 60, 40, 40, 40, 50, 60])
    // Half white on the pixels at the sides that grow, black on the others.
    #expect(mask.pixels == [255, 255, 127, 0, 0, 255, 255, 127, 127, 127, 255, 255, 255, 255, 255])
    let hard = Outpainting(left: 1, top: 0, right: 0, bottom: 0, feather: 0).canvas(of: image).mask
    #expect(hard.pixels == [255, 0, 0, 0, 255, 0, 0, 0])
    #expect(Outpainting(left: 0, top: 0, right: 0, bottom: 0).isEmpty)
  }

  @Test func aMaskIsWhatIsTransparentElseWhatIsWhite() {
    let pixels: [UInt8] = [255, 255, 255, 255, 0, 0, 0, 255]
    let opaque = RasterImage(width: 2, height: 1, channels: 4, pixels: pixels)
    #expect(!opaque.hasTransparency && opaque.asMask.pixels == [255, 0])
    #expect(opaque.rgb.asMask.pixels == [255, 0])
    var clear = pixels
    clear[7] = 55
    let transparent = RasterImage(width: 2, height: 1, channels: 4, pixels: clear)
    #expect(transparent.hasTransparency && transparent.asMask.pixels == [0, 200])
  }
}
